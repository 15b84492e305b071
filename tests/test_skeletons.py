"""Joint layouts: the built-in tables, and every error in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from dataset.graph import hop_distance
from dataset.skeletons import FOLDER, Skeleton, from_mapping, layout_names, skeleton, to_mapping
from errors import UserError
from tests.processes import run_python

NUM_JOINT = {
    "coco-17": 17,
    "florence-15": 15,
    "kinect-20": 20,
    "kinect-sdk-20": 20,
    "mediapipe-33": 33,
    "msr-20": 20,
    "ntu-25": 25,
    "ntu_edge-24": 24,
    "openpose-18": 18,
    "openpose-25": 25,
}
SMALL = {
    "name": "small",
    "joints": ["head", "spine", "hip", "foot"],
    "edges": [["head", "spine"], ["spine", "hip"], ["hip", "foot"]],
    "centre": "spine",
}


def pairs(text: str, first: int) -> tuple[tuple[int, int], ...]:
    """'1-2 2-21', counted from `first` -> ((0, 1), (1, 20))."""
    return tuple(tuple(int(v) - first for v in pair.split("-")) for pair in text.split())


# As published in the public code.
TABLES = {
    "ntu-25": {
        "edges": pairs(
            "1-2 2-21 3-21 4-3 5-21 6-5 7-6 8-7 9-21 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 "
            "18-17 19-18 20-19 22-23 23-8 24-25 25-12",
            first=1,
        ),
        "centre": 20,
        "origin": 1,
        "parents": tuple(
            v - 1
            for v in (2, 2, 21, 3, 21, 5, 6, 7, 21, 9, 10, 11, 1)
            + (13, 14, 15, 1, 17, 18, 19, 2, 23, 8, 25, 12)
        ),
        "parts": (
            *((4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24), (12, 13, 14, 15)),
            *((16, 17, 18, 19), (0, 1, 2, 3, 20)),
        ),
    },
    "ntu_edge-24": {
        "edges": pairs(
            "1-2 3-2 4-3 5-2 6-5 7-6 8-7 9-2 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 "
            "19-18 20-19 21-22 22-8 23-24 24-12",
            first=1,
        ),
        "centre": 2,
        "origin": 1,
        "parents": (),
        "parts": (),
    },
    "openpose-18": {
        "edges": pairs(
            "4-3 3-2 7-6 6-5 13-12 12-11 10-9 9-8 11-5 8-2 5-1 2-1 0-1 15-0 14-0 17-15 16-14",
            first=0,
        ),
        "centre": 1,
        "origin": 1,
        "parents": (1, 1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15),
        "parts": ((5, 6, 7), (2, 3, 4), (11, 12, 13), (8, 9, 10), (0, 1, 14, 15, 16, 17)),
    },
    "coco-17": {
        "edges": pairs(
            "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 8-6 9-7 10-8 11-9 2-3 2-1 3-1 4-2 5-3 4-6 "
            "5-7",
            first=1,
        ),
        "centre": 0,
        "origin": 0,
        "parents": (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        "parts": ((5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16), (0, 1, 2, 3, 4)),
    },
    "kinect-20": {
        "centre": 1,
        "origin": 2,
        "parents": (1, 2, 2, 2, 1, 4, 5, 6, 1, 8, 9, 10, 3, 12, 13, 14, 3, 16, 17, 18),
    },
    "kinect-sdk-20": {
        "edges": pairs(
            "1-0 1-2 2-3 2-4 4-5 5-6 6-7 2-8 8-9 9-10 10-11 0-12 12-13 13-14 14-15 0-16 16-17 "
            "17-18 18-19",
            first=0,
        ),
        "centre": 2,
        "origin": 1,
    },
    "msr-20": {
        "edges": pairs(
            "4-7 4-3 3-20 3-1 1-8 8-10 10-12 3-2 2-9 9-11 11-13 7-5 5-14 14-16 16-18 7-6 6-15 "
            "15-17 17-19",
            first=1,
        ),
        "centre": 2,
        "origin": 3,
    },
    "florence-15": {
        "edges": pairs("0-1 1-2 1-3 3-4 4-5 1-6 6-7 7-8 2-9 9-10 10-11 2-12 12-13 13-14", first=0),
        "centre": 1,
        "origin": 2,
    },
    "openpose-25": {
        "edges": pairs(
            "1-8 1-2 1-5 2-3 3-4 5-6 6-7 8-9 9-10 10-11 8-12 12-13 13-14 1-0 0-15 15-17 0-16 16-18 "
            "14-19 19-20 14-21 11-22 22-23 11-24",
            first=0,
        ),
        "centre": 1,
    },
    "mediapipe-33": {
        "edges": pairs(
            "0-1 1-2 2-3 3-7 0-4 4-5 5-6 6-8 9-10 11-12 11-13 13-15 15-17 15-19 15-21 17-19 12-14 "
            "14-16 16-18 16-20 16-22 18-20 11-23 12-24 23-24 23-25 24-26 25-27 26-28 27-29 28-30 "
            "29-31 30-32 27-31 28-32 0-9 0-10 0-11 0-12",
            first=0,
        ),
        "centre": 0,
    },
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_tables_equal_the_published_numbers(name: str) -> None:
    layout = skeleton(name)
    assert {key: getattr(layout, key) for key in TABLES[name]} == TABLES[name]


def test_built_in_layouts() -> None:
    assert {name: skeleton(name).num_joint for name in layout_names()} == NUM_JOINT
    for name in NUM_JOINT:
        assert skeleton(name).name == name and skeleton(name) is skeleton(name)
    assert skeleton("kinect-20").joints[3] == "hip_centre"
    assert skeleton("mediapipe-33").joints[32] == "right_foot_index"


@pytest.mark.parametrize("name", sorted(NUM_JOINT))
def test_layouts_are_consistent(name: str) -> None:
    layout = skeleton(name)
    hop = hop_distance(np.array(layout.edges), layout.num_joint, layout.num_joint)
    assert np.isfinite(hop).all(), "every joint is connected"
    if layout.parents:
        climb = np.arange(layout.num_joint)
        for _ in range(layout.num_joint):
            climb = np.array(layout.parents)[climb]
        assert (climb == layout.origin).all(), "every bone leads to the origin"
    if layout.parts:
        assert sorted(v for part in layout.parts for v in part) == list(range(layout.num_joint))


@pytest.mark.parametrize("name", sorted(NUM_JOINT))
def test_left_and_right_mirror(name: str) -> None:
    """The mirror image of a layout is the layout itself, so neither side has an error."""
    layout = skeleton(name)

    def mirror(joint: int) -> int:
        swap = {"left": "right", "right": "left"}
        words = layout.joints[joint].split("_")
        return layout.joints.index("_".join(swap.get(word, word) for word in words))

    edges = {frozenset(edge) for edge in layout.edges}
    assert {frozenset(map(mirror, edge)) for edge in layout.edges} == edges
    parts = {frozenset(part) for part in layout.parts}
    assert {frozenset(map(mirror, part)) for part in layout.parts} == parts
    for child, parent in enumerate(layout.parents):
        assert layout.parents[mirror(child)] == mirror(parent)


@pytest.mark.parametrize("name", sorted(NUM_JOINT))
def test_mapping_round_trip_through_yaml(name: str) -> None:
    text = yaml.safe_dump(to_mapping(skeleton(name)))
    assert from_mapping(yaml.safe_load(text), "here") == skeleton(name)


def test_defaults_of_optional_keys() -> None:
    layout = from_mapping(SMALL, "here")
    edges = ((0, 1), (1, 2), (2, 3))
    assert layout == Skeleton("small", tuple(SMALL["joints"]), edges, 1, (1, 1, 1, 2), 1, ())
    hip = from_mapping({**SMALL, "origin": "hip"}, "here")
    assert (hip.centre, hip.origin, hip.parents) == (1, 2, (1, 2, 2, 2))


def test_joints_by_name_and_by_number_mix() -> None:
    numbers = {**SMALL, "edges": [[0, "spine"], [1, 2], ["hip", 3]], "centre": 1}
    numbers |= {"parents": {0: 1, "spine": "spine", 2: "spine", "foot": 2}}
    assert from_mapping(numbers, "here") == from_mapping(SMALL, "here")


def test_in_a_cycle_the_lowest_number_is_the_parent() -> None:
    cycle = {**SMALL, "edges": [[3, 2], [2, 1], [1, 0], [0, 3]], "centre": 0}
    assert from_mapping(cycle, "here").parents == (0, 0, 1, 0)


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "name": "mine"}))
    assert skeleton(str(path)) == from_mapping({**SMALL, "name": "mine"}, "")
    path.write_text((FOLDER / "coco-17.yaml").read_text())
    assert skeleton(str(path)) == skeleton("coco-17")
    path.write_text(yaml.safe_dump({**SMALL, "name": "coco-17"}))
    with pytest.raises(UserError, match=r"mine.yaml: name: 'coco-17'.*choose another"):
        skeleton(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"center": "hip"}, r"center is unknown; did you mean centre\?"),
        ({"name": "a b"}, "name is 'a b'; allowed: letters"),
        ({"name": None}, "name is None"),
        ({"joints": 4}, "joints is 4; allowed: a list"),
        ({"joints": ["a", True]}, r"joints\[1\] is True; allowed: a name"),
        ({"joints": ["head", "hip", "head"]}, "joints: duplicate name 'head'"),
        ({"joints": ["head"]}, "joints has 1 names; allowed: 2 to 600"),
        ({"joints": [f"j{n}" for n in range(601)]}, "joints has 601 names; allowed: 2 to 600"),
        ({"edges": [["head", "spin"]]}, r"edges\[0\]\[1\] is 'spin', .*did you mean spine\?"),
        ({"edges": [[0, 4]]}, r"edges\[0\]\[1\] is 4, which is not a joint; .* 0 to 3"),
        ({"edges": [[0, -1]]}, r"edges\[0\]\[1\] is -1, which is not a joint"),
        ({"edges": [[0, True]]}, r"edges\[0\]\[1\] is True"),
        ({"edges": [["head", "spine", "hip"]]}, r"edges\[0\] has 3 joints; allowed: 2"),
        ({"edges": ["head"]}, r"edges\[0\] is 'head'; allowed: a list"),
        ({"edges": [["hip", 2]]}, r"edges\[0\] connects hip to itself"),
        ({"edges": [[0, 1], [1, 2], [2, 3], [1, 0]]}, r"edges\[3\] connects 1 and 0 again"),
        ({"edges": [["head", "spine"]]}, "no path from spine to hip, foot; connect"),
        ({"edges": []}, "no path from spine to head, hip, foot"),
        ({"centre": 4}, "centre is 4, which is not a joint"),
        ({"centre": [1]}, r"centre is \[1\], which is not a joint"),
        ({"origin": "hips"}, "origin is 'hips', which is not a joint; did you mean hip"),
        ({"parents": [1, 1, 1, 2]}, "parents is .*allowed: 'child: parent'"),
        ({"parents": {"head": 1, "hip": 1}}, "parents has 2 of 4 joints; add spine, foot"),
        ({"parents": {0: 1, 1: 2, 2: 0, 3: 2}}, "parents form a cycle: head, spine, hip"),
        ({"parents": {0: 1, 1: 1, 2: 2, 3: 2}}, "spine, hip are their own parents; .*one root"),
        ({"parents": {"head": "neck"}}, "parents: head is 'neck', which is not a joint"),
        ({"parents": {"neck": "head"}}, "parents: child is 'neck', which is not a joint"),
        ({"parents": {"head": 1, 0: 1}}, "parents names head twice"),
        ({"parts": [[0, 1], [1, 2, 3]]}, "parts overlap: spine; allowed"),
        ({"parts": [[0, 1], [2]]}, "parts: foot not in any part"),
        ({"parts": [[0, 1, 2, 3], []]}, "parts: an empty part"),
        ({"parts": [[0, 9]]}, r"parts\[0\]\[1\] is 9, which is not a joint"),
        ({"parts": {"arm": [0]}}, "parts is .*allowed: a list"),
    ],
)
def test_every_error_is_named(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"^my.yaml: .*{message}"):
        from_mapping({**SMALL, **change}, "my.yaml")


def test_files_that_are_not_layouts(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    with pytest.raises(UserError, match=r"bad.yaml: cannot be read: No such file"):
        skeleton(str(path))
    for content, message in (
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"joints: [", "not readable as YAML"),
        (b"- 1", "must contain keys and values: name, joints"),
        (b"name: x\njoints: [a, b]", "edges, centre missing"),
        (b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\nname: [*b, *b, *b]", "a is unknown"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"bad.yaml: {message}"):
            skeleton(str(path))


def test_wrong_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"did you mean kinect-20\?, or the path of a .yaml file"):
        skeleton("kinect")
    for name in ("zzz", "../layouts/ntu-25", ""):
        with pytest.raises(UserError, match="allowed: coco-17, florence-15, kinect-20"):
            skeleton(name)


def test_layouts_are_loaded_on_demand() -> None:
    code = (
        "import dataset.graph, dataset.features, dataset.protocols, dataset.skeletons as s\n"
        "print(s._built_in_layout.cache_info().currsize)"
    )
    done = run_python("-c", code)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_the_largest_layouts_are_checked_at_once() -> None:
    count = 600
    chain = {
        **{"name": "x", "joints": [f"j{n}" for n in range(count)], "centre": 0},
        "edges": [[n, n + 1] for n in range(count - 1)],
        "parents": {n: max(n - 1, 0) for n in range(count)},
        "parts": [[*range(count)]],
    }
    layout = from_mapping(chain, "x.yaml")
    assert layout.parents == (0, *range(count - 1))
    del chain["parents"]
    assert from_mapping(chain, "x.yaml") == layout
    hop = hop_distance(np.array(layout.edges), count, count)
    joint = np.arange(count)
    np.testing.assert_array_equal(hop, np.abs(joint[:, None] - joint))
    with pytest.raises(UserError, match=r"parts overlap: j0, j1, j10"):
        from_mapping({**chain, "parts": [[*range(count)] * 100]}, "x.yaml")
    with pytest.raises(UserError, match=r"edges\[598\] connects 0 and 1 again"):
        from_mapping({**chain, "edges": [*chain["edges"][:598], [0, 1]]}, "x.yaml")


def test_long_files_are_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("\n" * 2**22)
    with pytest.raises(UserError, match=r"x.yaml: 4,194,304 letters; allowed in YAML: 2,097,152"):
        skeleton(str(tmp_path / "x.yaml"))
