"""Kinetics-skeleton: JSON files -> data on disk."""

from __future__ import annotations

import codecs
import json
import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import configs
import main as cli
from dataset.protocols import data_spec
from errors import UserError, run_command
from generator import generate
from reader.clip import BadRecording
from reader.kinetics.matching import openpose_match
from reader.kinetics.reader import parse
from tests.keypoint_data import load_split, manifest_of
from tests.skeleton_text import hashes

LABEL = ("applauding", 3)  # as in Kinetics-400


def person(seed: int, level: float = 0.5) -> dict[str, list[float]]:
    """Coordinates in the image, scores about `level`; the third joint was not detected."""
    rng = np.random.default_rng(seed)
    score = np.round(rng.uniform(0.9, 1.1, 18) * level, 3)
    score[2] = 0
    return {"pose": np.round(rng.uniform(0, 1, 36), 3).tolist(), "score": score.tolist()}


def frame(number: int, *people: dict) -> dict[str, Any]:
    return {"frame_index": number, "skeleton": list(people)}


def text(*frames: dict, label: str = LABEL[0], label_index: Any = LABEL[1]) -> bytes:
    return json.dumps({"data": frames, "label": label, "label_index": label_index}).encode()


def channels(one: dict) -> np.ndarray:
    """What becomes of a person: (C, V), from the definition."""
    x, y, score = np.array(one["pose"])[::2], np.array(one["pose"])[1::2], np.array(one["score"])
    there = score != 0
    return np.stack([(x - 0.5) * there, (y - 0.5) * there, score]).astype(np.float32)


# --- one file --------------------------------------------------------------------------------


def test_frame_1_is_the_first_slot_and_300_the_last():
    ones = [person(k) for k in (1, 2, 300)]
    clip = parse(text(frame(1, ones[0]), frame(2, ones[1]), frame(300, ones[2])), LABEL, "x")
    assert clip.positions.shape == (3, 300, 18, 2)
    assert clip.positions.dtype == np.float32
    for slot, one in zip((0, 1, 299), ones):
        np.testing.assert_array_equal(clip.positions[:, slot, :, 0], channels(one))
    assert not clip.positions[:, 2:299].any()
    assert not clip.positions[..., 1].any()
    assert (clip.length, clip.is_truncated, clip.empty_frames, clip.misnumbered_frames) == (
        *(300, False),
        *(297, 0),
    )


def test_frames_beyond_300_and_below_1_are_left_out_and_noted():
    frames = [frame(k, person(k + 5)) for k in (-1, 0, 1, 300, 301, 999)]
    clip = parse(text(*frames), LABEL, "x")
    assert (clip.length, clip.is_truncated, clip.misnumbered_frames) == (300, True, 2)
    np.testing.assert_array_equal(clip.positions[:, 0, :, 0], channels(person(6)))
    np.testing.assert_array_equal(clip.positions[:, 299, :, 0], channels(person(305)))


def test_a_clip_that_counts_from_0_is_shifted_and_noted():
    ones = [person(k) for k in range(3)]
    shifted = parse(text(*(frame(k, one) for k, one in enumerate(ones))), LABEL, "x")
    usual = parse(text(*(frame(k + 1, one) for k, one in enumerate(ones))), LABEL, "x")
    np.testing.assert_array_equal(shifted.positions, usual.positions)
    assert (shifted.length, shifted.counts_from_zero, usual.counts_from_zero) == (3, True, False)
    assert shifted.misnumbered_frames == 0
    longest = parse(text(frame(0, ones[0]), frame(299, ones[1])), LABEL, "x")
    assert (longest.length, longest.is_truncated) == (300, False)
    np.testing.assert_array_equal(longest.positions[:, 299, :, 0], channels(ones[1]))
    assert parse(text(frame(0), frame(300, ones[0])), LABEL, "x").is_truncated


def test_the_two_of_highest_score_are_kept_frame_by_frame():
    levels = ((0.2, 0.9, 0.5), (0.8, 0.1, 0.4))
    people = [
        [person(10 * t + m, level) for m, level in enumerate(row)] for t, row in enumerate(levels)
    ]
    clip = parse(text(*(frame(t + 1, *row) for t, row in enumerate(people))), LABEL, "x")
    for t, order in enumerate(((1, 2), (0, 2))):
        for m, which in enumerate(order):
            expected = channels(people[t][which])
            np.testing.assert_array_equal(clip.positions[:, t, :, m], expected)


def test_equal_scores_keep_the_order_of_the_file():
    a, b = person(1), person(2)
    b["score"] = a["score"]
    clip = parse(text(frame(1, b, a)), LABEL, "x")
    np.testing.assert_array_equal(clip.positions[:, 0, :, 0], channels(b))


def test_a_sixth_person_is_not_read_but_noted():
    five = [person(k, 0.3) for k in range(5)]
    clip = parse(text(frame(1, *five, person(9, 0.9))), LABEL, "x")
    same = parse(text(frame(1, *five)), LABEL, "x")
    np.testing.assert_array_equal(clip.positions, same.positions)
    assert (clip.has_extra_body, same.has_extra_body) == (True, False)


def test_frames_without_anybody_count_as_empty():
    clip = parse(text(frame(1), frame(2, person(0)), frame(3)), LABEL, "x")
    assert (clip.length, clip.empty_frames, clip.has_person) == (3, 2, True)
    assert not parse(text(frame(1), frame(4)), LABEL, "x").has_person


def changed(**changes: Any) -> dict:
    return {**person(0), **changes}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"data": [', "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b"[1]", "not a JSON object"),
        (text(label="yawning"), r"its label is \('yawning', 3\); the label file says"),
        (text(label_index=4), r"its label is \('applauding', 4\)"),
        (text(), "'data' is not a list of frames, or empty"),
        (text({"frame_index": 1}), r"data\[0\]: not an object with frame_index and skeleton"),
        (text(frame("1", person(0))), r"data\[0\]: frame_index '1' is not an integer"),
        (text(frame(True, person(0))), r"data\[0\]: frame_index True is not an integer"),
        (text(frame(2**61 - 1)), r"data\[0\]: frame_index .* is not an integer of at most 1,000"),
        (text(*map(frame, range(60_000)), frame(59_999)), "duplicate frame_index 59999"),
        (
            text(frame(1, changed(score=[True] * 18)), *(frame(n, person(0)) for n in (2, 3))),
            r"frame_index 1: skeleton\[0\]: True is not a finite number",
        ),
        (
            text(frame(1, changed(score=["9" * 10**6] + [1] * 17)), frame(2, person(0))),
            r"frame_index 1: skeleton\[0\]: '9999.*9999' is not a finite number",
        ),
        (text(frame(-1), frame(-4, person(0))), "no frame_index is 1 or more"),
        (text(frame(7, person(0)), frame(7)), "duplicate frame_index 7"),
        (
            text(frame(1, [1])),
            r"frame_index 1: skeleton\[0\]: pose: no list of numbers; must be 36",
        ),
        (
            text(frame(2, person(0), changed(pose=[0.1] * 35))),
            r"frame_index 2: skeleton\[1\]: pose: 35 numbers; must be 36",
        ),
        (text(frame(2, changed(score=[0.1] * 19))), "score: 19 numbers; must be 18"),
        (text(frame(2, changed(score=[0.1] * 17 + ["x"]))), r"skeleton\[0\]: 'x' is not a finite"),
        (text(frame(2, changed(score=[0.1] * 17 + [None]))), "None is not a finite number"),
        (text(frame(2, changed(pose=[0.1] * 35 + [[1]]))), r"\[1\] is not a finite number"),
        (text(frame(2, changed(pose=[0.1] * 35 + [float("nan")]))), "nan is not a finite number"),
        (text(frame(2, changed(pose=[340.0] * 36))), "coordinates from 340 to 340, .* 0 to 1"),
        (text(frame(2, changed(score=[-0.5] * 18))), "scores from -0.5 to -0.5; allowed"),
        (text(frame(2, changed(score=[1e300] * 18))), r"scores from 1e\+300 to 1e\+300; allowed"),
    ],
)
def test_damage_is_named(data: bytes, said: str):
    with pytest.raises(BadRecording, match=f"^a.json, .*{said}"):
        parse(data, LABEL, "a.json")


def test_the_real_file_has_the_numbers_of_the_definition(samples: Path):
    file = samples / "samples" / "kinetics" / "open_pose_skeleton.json"
    clip = parse(file.read_bytes(), ("", ""), str(file))
    content = json.loads(file.read_bytes())["data"]
    assert clip.length == content[-1]["frame_index"] == 150
    assert clip.empty_frames == sum(not entry["skeleton"] for entry in content) == 28
    for t, entry in enumerate(content):
        expected = channels(entry["skeleton"][0]) if entry["skeleton"] else np.zeros((3, 18))
        np.testing.assert_array_equal(clip.positions[:, t, :, 0], expected)
    assert not clip.positions[..., 1].any()


# --- the whole set ---------------------------------------------------------------------------


def write_half(folder: Path, name: str, clips: dict[str, tuple[Any, bytes | None]]) -> Path:
    """clips: id -> (entry of the label file or None, content of its file or None)."""
    (folder / name).mkdir(parents=True)
    entries = {key: entry for key, (entry, _) in clips.items() if entry is not None}
    (folder / f"{name}_label.json").write_text(json.dumps(entries))
    for key, (_, data) in clips.items():
        if data is not None:
            (folder / name / f"{key}.json").write_bytes(data)
    return folder


def listed(label: str = LABEL[0], label_index: Any = LABEL[1], has_skeleton: Any = True) -> dict:
    return {"has_skeleton": has_skeleton, "label": label, "label_index": label_index}


def some_clips(*keys: str) -> dict[str, tuple[dict, bytes]]:
    return {
        key: (listed(), text(*(frame(k + 1, person(k + 9 * n)) for k in range(4 + n))))
        for n, key in enumerate(keys)
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_half(tmp_path / "k", "kinetics_train", some_clips("b", "_a", "-c"))
    return write_half(folder, "kinetics_val", some_clips("v2", "v1"))


def config_of(source: Path, out: Path, **keys: Any):
    group = {"source_path": str(source), "root_folder": str(out), **keys}
    overrides = {f"dataset_args.kinetics.{key}": value for key, value in group.items()}
    return configs.load("1001", {"dataset": "kinetics-skeleton", **overrides})


def made(source: Path, out: Path, workers: int = 1, **keys: Any) -> Path:
    return generate(config_of(source, out, **keys), workers=workers, progress=False)


def test_both_halves_are_written_sorted_by_id(source: Path, tmp_path: Path):
    folder = made(source, tmp_path / "out")
    assert folder == tmp_path / "out" / "original" / "kinetics-skeleton"
    data, names, labels, lengths = load_split(folder, "train")
    assert names == ["-c.json", "_a.json", "b.json"]
    assert (labels, lengths) == ([3, 3, 3], [6, 5, 4])
    assert data.shape == (3, 3, 300, 18, 2)
    assert load_split(folder, "eval")[1:] == (["v1.json", "v2.json"], [3, 3], [5, 4])
    for clip, name, length in zip(data, names, lengths):
        parsed = parse((source / "kinetics_train" / name).read_bytes(), LABEL, name)
        np.testing.assert_array_equal(clip[:, :length], parsed.positions)
        assert not clip[:, length:].any()


def test_the_manifest_says_what_it_is(source: Path, tmp_path: Path):
    manifest = manifest_of(made(source, tmp_path / "out", openpose_match=True))
    expected = {
        **{"kind": "kinetics", "source": str(source), "transform": False, "unit": "normalised"},
        "splits": {"train": "kinetics_train", "eval": "kinetics_val"},
        **{"skeleton": "openpose-18", "shape": [3, 300, 18, 2], "num_person": 2},
        **{"max_frame": 300, "num_class": 400, "openpose_match": True},
        "clips": {"train": 3, "eval": 2},
    }
    assert {key: manifest[key] for key in expected} == expected
    assert len(manifest["class_names"]) == 400


def test_openpose_match_is_applied_after_two_are_kept(tmp_path: Path):
    frames = [
        frame(k + 1, *(person(m, 0.3 + 0.1 * ((m + k) % 3)) for m in range(3))) for k in range(6)
    ]
    data = text(*frames)
    folder = write_half(tmp_path / "k", "kinetics_val", {"a": (listed(), data)})
    clips = [
        load_split(made(folder, tmp_path / str(m), openpose_match=m), "eval")[0]
        for m in (False, True)
    ]
    parsed = parse(data, LABEL, "x").positions
    np.testing.assert_array_equal(clips[0][0, :, :6], parsed)
    np.testing.assert_array_equal(clips[1][0, :, :6], openpose_match(parsed))
    assert not np.array_equal(*clips)


@pytest.mark.parametrize("match", [False, True])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, match: bool):
    clips = some_clips(*(f"id{n:02}" for n in range(20)))
    clips["id07"] = (listed(), b"{")
    source = write_half(tmp_path / "k", "kinetics_train", clips)
    keys = {"on_bad_file": "skip", "openpose_match": match}
    results = [hashes(made(source, tmp_path / str(n), n, **keys)) for n in (1, 2)]
    assert results[0] == results[1]
    (skipped,) = manifest_of(tmp_path / "2" / "original" / "kinetics-skeleton")["skipped"]
    assert skipped["file"] == "id07.json"
    assert skipped["reason"].startswith("not readable as JSON: ")


def test_clips_without_skeleton_or_label_are_left_out_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    clips = some_clips("a")
    clips["no_skeleton"] = (listed(has_skeleton=False), None)
    clips["blank"] = (listed("", ""), text(label="", label_index=""))
    clips["unlisted"] = (None, text())
    source = write_half(tmp_path / "k", "kinetics_train", clips)
    with caplog.at_level(logging.INFO):
        manifest = manifest_of(made(source, tmp_path / "out"))
    assert manifest["left_out"] == [
        {"file": "blank.json", "reason": "its label is blank"},
        {"file": "no_skeleton.json", "reason": "has_skeleton is false"},
    ]
    assert manifest["counters"]["without_skeleton"] == 1
    assert manifest["counters"]["blank_labels"] == 1
    assert manifest["clips"] == {"train": 1, "eval": 0}
    assert "1 without skeleton, 1 blank labels" in caplog.text
    assert "1 files are not in the label file and not used: unlisted.json" in caplog.text
    assert "kinetics_val_label.json not found: no eval data" in caplog.text


def test_the_real_label_file_is_blank(samples: Path, tmp_path: Path):
    kinetics = samples / "samples" / "kinetics"
    name = "open_pose_skeleton"
    entry = json.loads((kinetics / "kinetics_test_label.json").read_text())[name]
    data = (kinetics / f"{name}.json").read_bytes()
    labelled = {**json.loads(data), "label": LABEL[0], "label_index": LABEL[1]}
    clips = {name: (entry, data), "same": (listed(), json.dumps(labelled).encode())}
    folder = made(write_half(tmp_path / "k", "kinetics_val", clips), tmp_path / "out")
    data, names, labels, lengths = load_split(folder, "eval")
    assert (names, labels, lengths) == (["same.json"], [3], [150])
    assert data.any(axis=(0, 1, 3, 4)).sum() == 122
    assert manifest_of(folder)["left_out"] == [
        {"file": f"{name}.json", "reason": "its label is blank"}
    ]


@pytest.mark.parametrize(
    ("entry", "data", "said"),
    [
        (listed(), None, "kinetics_train/x.json, cannot be read: No such file"),
        (listed(), b"{", "kinetics_train/x.json, not readable as JSON"),
        (listed(), text(label="yawning"), "kinetics_train/x.json, its label is"),
        (listed(label_index=400), text(), "_label.json, 'x': label_index is 400; must be 0 to 399"),
        (
            listed(label_index="3"),
            text(),
            "_label.json, 'x': label is 'applauding' and label_index",
        ),
        (
            listed(has_skeleton="yes"),
            text(),
            "_label.json, 'x': has_skeleton must be true or false",
        ),
        ([1], text(), "_label.json, 'x': has_skeleton must be"),
    ],
)
def test_a_bad_clip_stops_or_is_skipped(tmp_path: Path, entry: Any, data: bytes | None, said: str):
    source = write_half(tmp_path / "k", "kinetics_train", {**some_clips("a"), "x": (entry, data)})
    with pytest.raises(UserError) as caught:
        made(source, tmp_path / "out")
    assert said in str(caught.value)
    assert "--set dataset_args.kinetics.on_bad_file=skip" in str(caught.value)
    manifest = manifest_of(made(source, tmp_path / "out", on_bad_file="skip"))
    assert manifest["clips"] == {"train": 1, "eval": 0}
    assert [entry["file"] for entry in manifest["skipped"]] == ["x.json"]


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path):
    source = write_half(tmp_path / "k", "kinetics_train", some_clips("a"))
    file = source / "kinetics_train_label.json"
    file.write_text(json.dumps({"../secret": listed()}))
    with pytest.raises(UserError, match="'../secret': not a file name"):
        made(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "which has no kinetics_train_label.json or"), ("[]", "must contain an object"),
     ("{", "not readable as JSON"), ("{}", "list no clip with a label")],
)  # fmt: skip
def test_a_folder_that_is_no_kinetics_is_refused(tmp_path: Path, content: str | None, said: str):
    if content is not None:
        (tmp_path / "kinetics_val").mkdir()
        (tmp_path / "kinetics_val_label.json").write_text(content)
    with pytest.raises(UserError, match=said):
        made(tmp_path, tmp_path / "out")


# --- classes of a user's own -----------------------------------------------------------------


OWN = ("jump", "挥手", "run")


def own_clips(*labels: int, names: tuple[str, ...] = OWN) -> dict[str, tuple[dict, bytes]]:
    return {
        f"c{n}": (listed(names[k], k), text(frame(0, person(n)), label=names[k], label_index=k))
        for n, k in enumerate(labels)
    }


def test_own_classes_are_refused_as_kinetics_and_read_as_the_message_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The command of the message, added to the one that failed, writes and describes the set."""
    source = write_half(tmp_path / "my clips", "kinetics_train", own_clips(0, 1, 0))
    write_half(source, "kinetics_val", own_clips(2, 1))
    argv = ["-gd", "-np", "--workers", "1", "-c", "1005", "--set"]
    argv += [f"dataset_args.kinetics.source_path={source}"]
    argv += [f"dataset_args.kinetics.root_folder={tmp_path / 'out'}"]
    assert run_command(lambda: cli.main(argv)) == 2
    said = capsys.readouterr().err
    assert "its label is 'jump', but label_index 0 of kinetics-skeleton is 'abseiling'" in said
    assert not list((tmp_path / "out").rglob("*.npy"))
    added = shlex.split(said.partition("your own, add: ")[2].partition(";")[0])
    assert run_command(lambda: cli.main([*argv, *added])) == 0
    folder = tmp_path / "out" / "original" / "my_set"
    manifest = manifest_of(folder)
    assert (manifest["class_names"], manifest["num_class"]) == (list(OWN), 3)
    assert manifest["counters"]["clips_counted_from_zero"] == 5
    assert "5 clips counted from zero" in capsys.readouterr().out
    assert load_split(folder, "train")[1:] == (
        ["c0.json", "c1.json", "c2.json"],
        [0, 1, 0],
        [1] * 3,
    )
    assert load_split(folder, "eval")[2] == [2, 1]
    config = cli.resolve(cli.parse([*argv, *added]))
    spec = data_spec(config.dataset, config.data.own_layout)
    assert (spec.class_names, spec.skeleton.name, spec.num_person) == (OWN, "openpose-18", 2)


def test_other_spellings_of_a_class_of_kinetics_are_the_same_class(tmp_path: Path):
    entry = listed("Massaging person’s  head", 196)
    data = text(frame(1, person(0)), label=entry["label"], label_index=196)
    folder = made(
        write_half(tmp_path / "k", "kinetics_val", {"a": (entry, data)}), tmp_path / "out"
    )
    assert load_split(folder, "eval")[2] == [196]
    assert manifest_of(folder)["class_names"][196] == "massaging person's head"


def test_byte_order_marks_are_no_part_of_the_text(tmp_path: Path):
    source = write_half(tmp_path / "k", "kinetics_val", own_clips(0, 1, 2))
    for file in source.rglob("*.json"):
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    keys = {"dataset": "mine", "dataset_args.kinetics.class_names": str(source)}
    keys["dataset_args.kinetics.source_path"] = str(source)
    keys["dataset_args.kinetics.root_folder"] = str(tmp_path / "out")
    folder = generate(configs.load("1005", keys), workers=1, progress=False)
    assert manifest_of(folder)["class_names"] == list(OWN)
    assert load_split(folder, "eval")[1:] == (["c0.json", "c1.json", "c2.json"], [0, 1, 2], [1] * 3)


def test_names_of_a_file_are_compared_with_the_labels(tmp_path: Path):
    source = write_half(tmp_path / "k", "kinetics_train", own_clips(0, 2))
    names = tmp_path / "names.txt"
    names.write_text("Jump\nwave\nRUN\n")
    keys = {"dataset": "mine", "dataset_args.kinetics.class_names": str(names)}
    keys["dataset_args.kinetics.source_path"] = str(source)
    keys["dataset_args.kinetics.root_folder"] = str(tmp_path / "out")
    config = configs.load("1005", keys)
    manifest = manifest_of(generate(config, workers=1, progress=False))
    assert manifest["class_names"] == ["Jump", "wave", "RUN"]
    names.write_text("run\nwave\njump\n")
    with pytest.raises(UserError, match="its label is 'jump', but label_index 0 of mine is 'run'"):
        generate(config, workers=1, progress=False)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([listed("a", 0), listed("b", 0)], "label_index 0 is 'a' and 'b'; give each class"),
        ([listed("a", 0), listed("a", 1)], "'a' is label_index 0 and 1; give each class"),
        ([listed("a", 1)], "no clip has label_index 0; give each class one label"),
        ([listed("a", 10**9)], "a label_index is not in 0 to 99999; give each class one label"),
        ([listed("", ""), [1]], "has no kinetics_train_label.json or kinetics_val_label.json with"),
    ],
)
def test_unclear_names_are_refused(tmp_path: Path, entries: list, said: str):
    folder = write_half(
        tmp_path, "kinetics_val", {str(n): (entry, None) for n, entry in enumerate(entries)}
    )
    with pytest.raises(UserError, match=said):
        data_spec("mine", {"class_names": str(folder)})


def test_the_name_of_the_benchmark_keeps_its_classes(tmp_path: Path):
    with pytest.raises(UserError, match="has the 400 classes of Kinetics.* own: -d my_set"):
        data_spec("kinetics-skeleton", {"class_names": str(tmp_path)})


def test_the_names_of_many_classes_are_read_at_once(tmp_path: Path):
    entries = {f"v{n}": (listed(f"class {n:05d}", n), None) for n in range(40_000)}
    names = data_spec("mine", {"class_names": str(write_half(tmp_path, "kinetics_val", entries))})
    assert names.class_names[::39_999] == ("class 00000", "class 39999")


def test_a_list_of_too_many_classes_is_refused(tmp_path: Path):
    (tmp_path / "names.txt").write_text("\n" * 100_001)
    with pytest.raises(UserError, match=r"names.txt: more than 100000 lines, one for each class"):
        data_spec("mine", {"class_names": str(tmp_path / "names.txt")})
