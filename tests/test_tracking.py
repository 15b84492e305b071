"""Who is who from frame to frame, and recordings whose persons change their order."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from configs.schema import Config
from dataset.identity import compare, of_data, of_manifest
from dataset.protocols import data_spec
from dataset.skeletons import skeleton
from errors import UserError
from generator import generate
from reader.ntu.reader import parse
from reader.recording import form_of, read_recording
from reader.tracking import MAX_GAP, Tracker, reordered
from tests.keypoint_data import keypoint_config, write_index
from tests.skeleton_text import clip_name, config_for


def body(seed: int) -> np.ndarray:
    """(25, 3) metres around the person's own centre."""
    return np.random.RandomState(seed).uniform(-0.5, 0.5, (25, 3)) * [0.6, 1.8, 0.3]


def crossing(length: int = 60, apart: float = 0.3) -> np.ndarray:
    """(2, T, 25, 3): two people who walk past each other, `apart` metres in depth."""
    path = np.linspace(-1, 1, length)[:, None, None]
    ways = [path * [1, 0, 0] + [0, 0, 3], path * [-1, 0, 0] + [0, 0, 3 + apart]]
    noise = np.random.RandomState(5).normal(scale=0.01, size=(2, length, 25, 3))
    return np.stack([body(n) + way for n, way in enumerate(ways)]) + noise


def clip_of(people: np.ndarray) -> np.ndarray:
    """(M, T, V, 3) -> (3, T, V, M) float32."""
    return people.transpose(3, 1, 2, 0).astype(np.float32)


def alternated(clip: np.ndarray) -> np.ndarray:
    """With the first two persons exchanged in every second frame."""
    changed = clip.copy()
    changed[:, 1::2, :, :2] = clip[:, 1::2, :, 1::-1]
    return changed


def test_people_who_cross_keep_their_identity() -> None:
    people, order = crossing(), np.random.RandomState(0)
    for axes in (3, 2):
        tracker = Tracker()
        for t in range(people.shape[1]):
            who = order.permutation(2) if t else np.arange(2)
            assert tracker.update([people[m, t, :, :axes] for m in who]) == who.tolist()


def test_a_person_returns_within_the_longest_gap_and_is_new_after_it() -> None:
    for gap, name in ((MAX_GAP, 0), (MAX_GAP + 1, 1)):
        tracker = Tracker()
        assert [tracker.update([body(0)]) for _ in range(5)] == [[0]] * 5
        assert [tracker.update([]) for _ in range(gap)] == [[]] * gap
        assert tracker.update([body(0)]) == [name]


def test_a_person_is_expected_where_it_was_going() -> None:
    """Ten frames later the other one is where it was, and it is a metre further."""
    tracker, step = Tracker(), np.array([0.1, 0, 0])
    for t in range(10):
        tracker.update([body(0) + t * step])
    for _ in range(10):
        tracker.update([])
    assert tracker.update([body(0) + 9 * step + [0, 0, 2], body(0) + 20 * step]) == [1, 0]


def test_missing_joints_do_not_count() -> None:
    tracker = Tracker()
    first, partly = body(0), body(0)
    partly[:20] = np.nan
    zeros = body(0)
    zeros[5:] = 0
    assert tracker.update([first]) == [0]
    assert tracker.update([partly]) == [0] and tracker.update([zeros]) == [0]
    nobody = np.zeros((25, 3))
    assert tracker.update([nobody, first]) == [1, 0]
    assert tracker.update([nobody]) == [2]  # without a joint nobody can be known again


def test_someone_else_is_someone_else() -> None:
    tracker = Tracker()
    assert tracker.update([body(0)]) == [0]
    assert tracker.update([body(0) + [5, 0, 0], body(0)]) == [1, 0]


@pytest.mark.parametrize("shape", [(25, 4), (25,), (20, 3)])
def test_people_of_other_shapes_are_an_error(shape: tuple[int, ...]) -> None:
    tracker = Tracker()
    tracker.update([body(0)])
    with pytest.raises(ValueError, match="must be one"):
        tracker.update([np.ones(shape)])


def test_a_recording_in_order_stays_the_same_object() -> None:
    for people in (crossing(), crossing()[:1], crossing(apart=0.05)):
        clip = clip_of(people)
        same, swaps = reordered(clip)
        assert same is clip and swaps == 0


@pytest.mark.parametrize("apart", [0.3, 0.05])
def test_a_changing_order_is_undone(apart: float) -> None:
    clip = clip_of(crossing(apart=apart))
    repaired, swaps = reordered(alternated(clip))
    assert swaps == clip.shape[1] - 1
    expected = clip if np.array_equal(repaired, clip) else clip[..., ::-1]
    np.testing.assert_array_equal(repaired, expected)


def test_a_single_change_and_an_absence_are_undone() -> None:
    clip = clip_of(crossing())
    changed = clip.copy()
    changed[:, 20:] = clip[:, 20:, :, ::-1]
    changed[:, 30:40, :, 0] = 0  # the second person is absent
    expected = clip.copy()
    expected[:, 30:40, :, 1] = 0
    repaired, swaps = reordered(changed)
    assert swaps == 1
    assert any(np.array_equal(repaired, way) for way in (expected, expected[..., ::-1]))


def exact_text(clip: np.ndarray) -> str:
    """A `.skeleton` file of (3, T, 25, 2), both persons in every frame, with every digit."""
    lines = [str(clip.shape[1])]
    for t in range(clip.shape[1]):
        lines.append("2")
        for m in range(2):
            lines += [f"{m} 0 0 0 0 0 0 0 0 2", "25"]
            lines += [f"{x} {y} {z} 0 0 0 0 0 0 0 0 2" for x, y, z in clip[:, t, :, m].T]
    return "\n".join(lines) + "\n"


def test_real_recordings_that_alternate(samples: Path, tmp_path: Path) -> None:
    """Of two persons in contact; the repaired clip is the recorded one, bit for bit."""
    form = form_of(skeleton("ntu-25"), 2, is_3d=True)
    found = 0
    for path in sorted((samples / "samples/ntu").rglob("*.skeleton")):
        data = path.read_bytes()
        clip = parse(data, path.name)
        assert clip.swaps == 0, path.name
        if not clip.positions.any(axis=(0, 2)).all():
            continue  # not both of them all the time
        found += 1
        text = exact_text(alternated(clip.positions))
        plain, repaired = (parse(text.encode(), path.name, repair_order=way) for way in (0, 1))
        assert plain.swaps == repaired.swaps > 0
        assert not np.array_equal(plain.positions, clip.positions)
        np.testing.assert_array_equal(repaired.positions, clip.positions)
        (tmp_path / "changed.skeleton").write_text(text)
        np.testing.assert_array_equal(
            read_recording(tmp_path / "changed.skeleton", form), clip.positions
        )
    assert found >= 2


def test_recordings_may_be_longer_than_a_clip_of_ntu(tmp_path: Path) -> None:
    clip = clip_of(crossing(length=400))
    (tmp_path / "long.skeleton").write_text(exact_text(clip))
    read = read_recording(tmp_path / "long.skeleton", form_of(skeleton("ntu-25"), 2, is_3d=True))
    assert read.shape == clip.shape and parse(exact_text(clip).encode(), "").length == 300
    with pytest.raises(UserError, match="the model wants the 17"):
        read_recording(tmp_path / "long.skeleton", form_of(skeleton("coco-17"), 2, is_3d=False))


KEY = "dataset_args.{}.repair_order=true"


@pytest.mark.parametrize("kind", ["ntu", "keypoint"])
def test_data_generation_counts_and_repairs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Repaired data are those of the recordings in order, byte for byte; others are not used by a
    configuration that asks for repaired ones."""
    clips = {name: clip_of(crossing(40 + n)) for n, name in enumerate("abcd")}
    folders = {}
    for way, change in (("whole", lambda clip: clip), ("changed", alternated)):
        for n, (name, clip) in enumerate(clips.items()):
            (tmp_path / way).mkdir(exist_ok=True)
            array = change(clip) if name == "b" else clip
            if kind == "ntu":
                file = tmp_path / way / f"{clip_name(1 + n, 1)}.skeleton"
                file.write_text(exact_text(array))
            else:
                np.save(tmp_path / way / f"{name}.npy", array.transpose(3, 1, 2, 0))
        if kind == "keypoint":
            splits = ("train", "train", "test", "test")
            rows = [(f"{name}.npy", n % 2, splits[n]) for n, name in enumerate(clips)]
            write_index(tmp_path / way, rows)

    def config(way: str, repair: bool) -> Config:
        out = tmp_path / f"out-{way}-{repair}"
        if kind == "ntu":
            return config_for(tmp_path / way, out, repair_order=repair)
        more = {"skeleton": "ntu-25", "num_person": 2, "max_frame": 60, "repair_order": repair}
        return keypoint_config(tmp_path / way, out, **more)

    for way, repair in itertools.product(("whole", "changed"), (False, True)):
        caplog.clear()
        folder = generate(config(way, repair), workers=1, progress=False)
        counters = json.loads((folder / "manifest.json").read_text())["counters"]
        assert counters["clips_with_swaps"] == (way == "changed")
        asks = "1 clips list their persons in an order that changes between frames; to repair: "
        asks += f"--set {KEY.format(kind)}"
        assert (asks in caplog.text) == (way == "changed" and not repair)
        folders[way, repair] = {
            file: (folder / file).read_bytes() for file in ("train_data.npy", "eval_data.npy")
        }
    assert folders["whole", False] == folders["whole", True] == folders["changed", True]
    assert folders["changed", False] != folders["whole", False]
    wanted = config("changed", True)
    spec = data_spec(wanted.dataset, wanted.data.own_layout)
    for way, repair in (("changed", True), ("changed", False)):
        (manifest,) = (tmp_path / f"out-{way}-{repair}").rglob("manifest.json")
        stored = of_manifest(json.loads(manifest.read_text()))
        what = {"source": "data", "other": "the configuration", "fix": "generate", "accept": ()}
        if repair:
            compare(stored, of_data(wanted.data, spec), **what)
        else:
            with pytest.raises(UserError, match="repair_order is False"):
                compare(stored, of_data(wanted.data, spec), **what)
