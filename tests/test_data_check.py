"""The check of a user's own data: each of the usual mistakes is reported as such, with the clips
that have it and the fix."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.protocols import DataSpec
from dataset.skeletons import skeleton
from errors import UserError
from reader.keypoint.axes import likely_axes
from reader.keypoint.types import Raw, Wanted
from safe_pickle import load_pickle
from tests.keypoint_data import (
    annotation,
    body,
    four_clips,
    image,
    load_split,
    made,
    manifest_of,
    write_folder,
    write_pickle,
)

KEY = "dataset_args.keypoint."


def report_of(tmp_path: Path) -> str:
    return (tmp_path / "out" / "original" / "mine" / "report.txt").read_text()


def refused(source: Path, tmp_path: Path, **keys: Any) -> str:
    """The one-line error, with the same problem in the report; nothing else is written."""
    with pytest.raises(UserError) as caught:
        made(source, tmp_path / "out", **keys)
    line, report = str(caught.value), report_of(tmp_path)
    folder = tmp_path / "out" / "original" / "mine"
    assert [path.name for path in folder.iterdir()] == ["report.txt"]
    assert line.endswith(f"; full report: {folder / 'report.txt'}")
    assert f"ERROR: {line.split(' (')[0].split('; ')[0]}" in report
    return line


def warned(source: Path, tmp_path: Path, **keys: Any) -> str:
    """The report of data that are generated despite warnings."""
    folder = made(source, tmp_path / "out", **keys)
    assert (folder / "manifest.json").is_file()
    report = report_of(tmp_path)
    assert "errors: 0" in report
    return report.partition("errors: 0")[2]


def four(tmp_path: Path, change=lambda array: array) -> Path:
    return write_folder(tmp_path / "mine", *four_clips(change))


def with_one(
    tmp_path: Path, array: np.ndarray, name: str = "odd.npy", split: str = "train"
) -> Path:
    """Four sound clips and another one."""
    arrays, rows = four_clips()
    return write_folder(tmp_path / "mine", {**arrays, name: array}, [*rows, (name, 0, split)])


def in_image(size: tuple[float, float] = (1, 1)):
    """For four_clips: people in an image of that size."""
    clips = iter(range(9))
    return lambda _: image(next(clips)) * np.float32(size)


def test_sound_data_have_no_problems(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        assert warned(four(tmp_path), tmp_path) == ", warnings: 0\n"
    for line in filter(None, report_of(tmp_path).splitlines()):
        assert line in caplog.text


# --- axes ------------------------------------------------------------------------------------


def people(seed: int, num_frame: int, num_axis: int, num_person: int) -> np.ndarray:
    """(M, T, V=18, C): x, y, z in metres, or normalised x, y[, score]."""
    make = body if num_axis == 0 else image
    clip = [make(seed + 7 * n, num_frame, 18) for n in range(num_person)]
    for n, one in enumerate(clip):
        one[..., 0] += np.float32(0.2 * (n % 3))
    if num_axis == 3:
        score = np.random.default_rng(seed).uniform(0.5, 1, (num_frame, 18, 1))
        clip = [np.concatenate([one, score], axis=2).astype(np.float32) for one in clip]
    return np.stack(clip)


def ordered(tmp_path: Path, order: str, *shape: int) -> Path:
    """Four clips (`people`) with their axes in that order."""
    seeds = iter(range(9))

    def change(_: np.ndarray) -> np.ndarray:
        clip = people(next(seeds), *shape)
        clip = clip if "M" in order else clip[0]
        letters = "MTVC"[-clip.ndim :]
        return clip.transpose([letters.index(letter) for letter in order])

    return four(tmp_path, change)


ORDERS = [
    "".join(order) for letters in ("MTVC", "TVC") for order in itertools.permutations(letters)
]


@pytest.mark.parametrize("num_axis", [0, 2, 3])  # 0: in space
@pytest.mark.parametrize("num_person", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_the_axes_is_recognised_and_read(
    tmp_path: Path, order: str, num_person: int, num_axis: int
):
    source = ordered(tmp_path, order, 60, num_axis, num_person)
    keys = {"skeleton": "openpose-18", "num_person": 3, "max_frame": 64}
    keys["unit"] = "normalised" if num_axis else "metre"
    usual = "MTVC"[-len(order) :]
    if order != usual:
        line = refused(source, tmp_path, **keys)
        stored = dict(zip("MTVC", people(0, 60, num_axis, num_person).shape))
        shape = tuple(stored[letter] for letter in order)
        said = f"axes are not ({', '.join(usual)}): shape {shape} of train0.npy looks like "
        assert said in line and f"({', '.join(order)})" in line
        assert line.split(f"set {KEY}axes=")[1].split("; full")[0].split(" or ") == [order]
        assert "unit=" not in report_of(tmp_path)
        keys["axes"] = order
    plain = made(
        ordered(tmp_path / "plain", usual, 60, num_axis, num_person),
        tmp_path / "b",
        **{**keys, "axes": ""},
    )
    folder = made(source, tmp_path / "a", **keys)
    for phase in ("train", "eval"):
        data = load_split(folder, phase)[0]
        np.testing.assert_array_equal(data, load_split(plain, phase)[0])
    assert manifest_of(folder)["axes"] == keys.get("axes", "")


def test_three_channels_of_two_persons_are_not_two_coordinates_of_three(tmp_path: Path):
    """The example of a public bug report, with and without the second person."""
    source = ordered(tmp_path, "CTVM", 60, 3, 2)
    for n in range(2):
        array = np.load(source / f"train{n}.npy")
        array[..., 1] = 0
        np.save(source / f"train{n}.npy", array)
    line = refused(source, tmp_path, skeleton="openpose-18", unit="normalised", max_frame=64)
    assert "shape (3, 60, 18, 2) of train0.npy looks like (C, T, V, M)" in line
    assert f"; set {KEY}axes=CTVM" in line


def test_clips_that_fit_two_orders_are_decided_by_the_others(tmp_path: Path):
    source = ordered(tmp_path, "CTVM", 60, 0, 1)
    np.save(source / "train0.npy", people(0, 18, 0, 1).transpose(3, 1, 2, 0))
    keys = {"skeleton": "openpose-18", "max_frame": 64}
    line = refused(source, tmp_path, **keys)
    assert "shape (3, 18, 18, 1) of train0.npy looks like (C, T, V, M), as openpose-18" in line
    assert line.endswith(f"axes=CTVM; full report: {tmp_path}/out/original/mine/report.txt")
    folder = made(source, tmp_path / "out", **keys, axes="CTVM")
    assert load_split(folder, "train")[3] == [18, 60]


@pytest.mark.parametrize("shape", [(1, 5, 2), (3, 8, 2), (8, 2, 3), (2, 1, 18)])
def test_sizes_that_fit_several_orders_are_read_as_before(
    tmp_path: Path, shape: tuple[int, int, int]
):
    """(T, number of coordinates, M), with as many persons as coordinates, and more than frames."""
    num_frame, num_axis, num_person = shape
    if num_person == 18:  # as many as joints
        num_axis, num_person = 2, 18
    source = ordered(tmp_path, "MTVC", num_frame, num_axis, num_person)
    keys = {"skeleton": "openpose-18", "unit": "normalised", "num_person": 3}
    folder = made(source, tmp_path / "out", **keys)
    assert load_split(folder, "train")[3] == [num_frame] * 2


@pytest.mark.parametrize("num_axis", [2, 3])
def test_real_recordings_in_every_order(samples: Path, num_axis: int):
    """Of Kinect v1, and their x and y; as they are, none looks misordered."""
    annotations = load_pickle(samples / "samples/utd_mhad/utd_mhad.pkl")["annotations"]
    spec = DataSpec("mine", 2, skeleton("kinect-20"), 1, 128, ("", ""))
    unit = "metre" if num_axis == 3 else "normalised"
    wanted = Wanted(spec, {}, 0, unit, None, False)
    for clip in annotations[::40]:
        points = clip["keypoint"][..., :num_axis]
        for order in ("".join(axes) for axes in itertools.permutations("MTVC")):
            array = points.transpose(["MTVC".index(letter) for letter in order])
            found, _ = likely_axes(Raw([array]), wanted)
            assert found == ([] if order == "MTVC" else [order])


def test_axes_that_an_array_cannot_have(tmp_path: Path):
    source = ordered(tmp_path, "MTVC", 8, 0, 1)
    line = refused(source, tmp_path, skeleton="openpose-18", axes="TVC")
    assert "an array of shape (1, 8, 18, 3), whose axes cannot be TVC" in line


def test_tables_have_no_axes(tmp_path: Path):
    source = four(tmp_path, lambda array: array.reshape(8, 51))
    plain = made(source, tmp_path / "plain")
    folder = made(source, tmp_path / "out", axes="CTVM")
    np.testing.assert_array_equal(load_split(folder, "eval")[0], load_split(plain, "eval")[0])


def test_a_table_with_one_value_per_joint(tmp_path: Path):
    line = refused(four(tmp_path, lambda array: array[..., 0]), tmp_path)
    assert "the clips have 17 values per frame, not a multiple of 3 (x, y, z)" in line


def test_scores_have_the_axes_of_the_keypoints(tmp_path: Path):
    clips, score = [], np.full((2, 8, 17), 0.5)
    score[0, 1, 2] = 0
    for n in range(4):
        points = np.stack([image(n), image(n + 9)]).transpose(3, 1, 2, 0)
        scores = score.transpose(1, 2, 0)
        clips.append(annotation("abcd"[n], n % 2, points, keypoint_score=scores))
    source = write_pickle(tmp_path / "x.pkl", clips, {"train": ["a", "b"], "test": ["c", "d"]})
    keys = {"unit": "normalised", "num_person": 2, "axes": "CTVM"}
    data = load_split(made(source, tmp_path / "out", **keys), "train")[0]
    persons = sorted(range(2), key=lambda m: -data[0][2, :8, :, m].sum())
    assert persons == [0, 1]
    np.testing.assert_array_equal(data[0][2, :8, :, 0], score[1])
    np.testing.assert_array_equal(data[0][2, :8, :, 1], score[0])
    np.testing.assert_allclose(data[0][:2, 0, :, 0].T, image(9)[0] - 0.5, atol=1e-6)


# --- joints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_table", [True, False])
def test_51_against_75_numbers(tmp_path: Path, is_table: bool):
    source = four(tmp_path, lambda array: array.reshape(8, -1) if is_table else array)
    line = refused(source, tmp_path, skeleton="ntu-25")
    assert line.startswith(
        "the clips have 51 values per frame = 17 joints x 3; skeleton is ntu-25 (25 joints) "
        f"(train0.npy, train1.npy, test0.npy, test1.npy); set {KEY}skeleton=coco-17;"
    )


def test_75_against_51_numbers(tmp_path: Path):
    clips = iter(range(9))
    source = four(tmp_path, lambda _: body(next(clips), num_joint=25).reshape(8, 75))
    line = refused(source, tmp_path, skeleton="coco-17")
    assert "75 values per frame = 25 joints x 3; skeleton is coco-17 (17 joints)" in line
    assert f"set {KEY}skeleton=ntu-25 or openpose-25" in line


def test_tables_of_image_coordinates_have_two_values_per_joint(tmp_path: Path):
    source = four(tmp_path, lambda _: image(0, num_joint=18).reshape(8, 36))
    line = refused(source, tmp_path, unit="normalised")
    assert "36 values per frame = 18 joints x 2" in line
    assert "skeleton=openpose-18" in line


def test_two_persons_in_one_row_are_recognised(tmp_path: Path):
    source = four(tmp_path, lambda array: np.concatenate([array, array], 1).reshape(8, -1))
    assert "if each frame has 2 persons in one row, store them as (M, T, V, C)" in refused(
        source, tmp_path
    )


def test_two_persons_of_an_image_in_one_row_are_not_depth_and_visibility(tmp_path: Path):
    clips = iter(range(9))

    def row(_: np.ndarray) -> np.ndarray:
        n = next(clips)
        return np.concatenate([image(n, num_joint=25).reshape(8, 50) + x for x in (0, 0.1)], axis=1)

    line = refused(four(tmp_path, row), tmp_path, unit="normalised", skeleton="ntu-25")
    assert "100 values per frame = 50 joints x 2" in line
    assert "if each frame has 2 persons in one row, store them as (M, T, V, C)" in line


def test_fourth_values_that_are_no_scores(tmp_path: Path):
    odd = np.concatenate([body(0), np.full((8, 17, 1), -3, np.float32)], axis=2)
    line = refused(with_one(tmp_path, odd), tmp_path)
    assert "odd.npy: 4 values per joint, but the fourth range from -3 to -3; must be scores" in line


def test_tables_with_visibility_name_their_layout(tmp_path: Path):
    line = refused(four(tmp_path, lambda _: np.ones((8, 132))), tmp_path, skeleton="ntu-25")
    assert "132 values per frame = 33 joints x 4; skeleton is ntu-25" in line
    assert f"set {KEY}skeleton=mediapipe-33" in line


def test_an_unknown_number_of_joints_needs_a_layout(tmp_path: Path):
    source = four(tmp_path, lambda array: array[:, :11])
    line = refused(source, tmp_path)
    assert "33 values per frame = 11 joints x 3" in line
    assert "no built-in layout has 11 joints: describe yours in a YAML" in line


def test_numbers_that_are_no_joints(tmp_path: Path):
    line = refused(four(tmp_path, lambda array: array.reshape(8, -1)[:, :50]), tmp_path)
    assert "the clips have 50 values per frame, not a multiple of 3 (x, y, z)" in line


def test_one_clip_of_another_layout_is_named_or_skipped(tmp_path: Path):
    source = with_one(tmp_path, body(9, num_joint=25))
    line = refused(source, tmp_path)
    assert "(odd.npy)" in line
    assert f"or skip such clips: --set {KEY}on_bad_file=skip" in line
    text = warned(source, tmp_path, on_bad_file="skip")
    assert "  clips: odd.npy\n  fix: none needed: they will be skipped\n" in text


def test_joints_that_are_never_detected(tmp_path: Path):
    def without_ears(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[:, 3:5] = 0
        array[:2, 7] = 0
        return array

    text = warned(four(tmp_path, without_ears), tmp_path)
    assert "joints missing in most frames: left_ear in 100%, right_ear in 100%\n" in text
    assert "left_ear 100.0%, right_ear 100.0%, left_elbow 25.0%" in report_of(tmp_path)


# --- clips -----------------------------------------------------------------------------------


def test_empty_clips(tmp_path: Path):
    text = warned(with_one(tmp_path, np.zeros((8, 17, 3))), tmp_path)
    assert (
        "WARNING: 1 clips contain no person: all of their joints are 0\n  clips: odd.npy\n" in text
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -2e6])
def test_invalid_numbers(tmp_path: Path, value: float):
    array = body(0)
    array[1, 2, 0] = value
    line = refused(with_one(tmp_path, array), tmp_path)
    assert line.startswith(
        "1 clips contain NaN, infinity or values beyond 1e+06 (odd.npy); write 0"
    )


def test_clips_in_both_splits(tmp_path: Path):
    arrays, rows = four_clips()
    source = write_folder(tmp_path / "mine", arrays, [*rows, ("train0.npy", 0, "test")])
    line = refused(source, tmp_path)
    assert line.startswith("1 clips are in both splits, train and test")
    assert "(train0.npy); keep each of them in one split" in line


def test_clips_in_both_splits_of_a_pickle(tmp_path: Path):
    clips = [annotation(name, n % 2, body(n)[None]) for n, name in enumerate("abcd")]
    splits = {"train": ["a", "b", "c"], "test": ["c", "d", "lost"]}
    source = write_pickle(tmp_path / "x.pkl", clips, splits)
    assert refused(source, tmp_path).startswith("1 clips are in both splits")
    assert "the splits list 1 clips without annotation: lost" in report_of(tmp_path)


def test_clips_that_are_listed_twice(tmp_path: Path):
    arrays, rows = four_clips()
    source = write_folder(tmp_path / "mine", arrays, [*rows, ("test1.npy", 1, "test")])
    assert "1 clips are listed more than once (test1.npy)" in refused(source, tmp_path)


def test_copies_under_other_names(tmp_path: Path):
    arrays, rows = four_clips()
    arrays |= {"again.npy": arrays["train0.npy"], "leak.npy": arrays["train1.npy"]}
    rows += [("again.npy", 0, "train"), ("leak.npy", 1, "test")]
    text = warned(write_folder(tmp_path / "mine", arrays, rows), tmp_path)
    assert "1 clips have a copy under another name in the other split" in text
    assert "  clips: train1.npy = leak.npy\n" in text
    assert "1 clips have copies under other names in the same split" in text
    assert "  clips: train0.npy = again.npy\n" in text
    # The copy within the training split does no harm to the accuracy.
    assert manifest_of(tmp_path / "out/original/mine")["copies"] == {"eval": ["leak.npy"]}


def test_a_recording_of_both_splits_under_several_names(tmp_path: Path):
    arrays, rows = four_clips()
    names = [("a.npy", "train"), ("b.npy", "test"), ("c.npy", "test"), ("d.npy", "other")]
    arrays |= {name: arrays["train0.npy"] for name, _ in names}
    rows += [(name, 0, split) for name, split in names]
    warned(write_folder(tmp_path / "mine", arrays, rows), tmp_path)
    copies = manifest_of(tmp_path / "out/original/mine")["copies"]
    assert copies == {"eval": ["b.npy", "c.npy"]}


def test_files_that_are_not_listed(tmp_path: Path):
    source = four(tmp_path)
    np.save(source / "spare.npy", body(0))
    text = warned(source, tmp_path)
    assert "WARNING: 1 files are not in index.csv and not used: spare.npy\n" in text


def test_files_in_linked_folders_are_listed_or_named(tmp_path: Path):
    arrays, rows = four_clips()
    files = {f"real/{file}": array for file, array in arrays.items()}
    listed = [(f"a_link/{file}", label, split) for file, label, split in rows]
    source = write_folder(tmp_path / "mine", files, listed)
    (source / "a_link").symlink_to(source / "real")
    (source / "real" / "loop").symlink_to(source)
    assert warned(source, tmp_path) == ", warnings: 0\n"
    write_folder(tmp_path / "other", {"extra.npy": body(9)}, rows)
    (source / "z_link").symlink_to(tmp_path / "other")
    assert "2 files are not in index.csv and not used: z_link/extra.npy, z_link/index.csv" in (
        warned(source, tmp_path)
    )


def test_a_split_of_another_name(tmp_path: Path):
    arrays, rows = four_clips()
    renamed = [(file, label, split.replace("test", "val")) for file, label, split in rows]
    source = write_folder(tmp_path / "mine", arrays, renamed)
    line = refused(source, tmp_path)
    assert line.startswith(
        f"{KEY}eval_split is 'test', but no clip is in that split; the data have train (2 clips), "
        f"val (2 clips); set {KEY}eval_split to val"
    )
    assert "warnings: 0" in warned(source, tmp_path, eval_split="val")
    assert "warnings: 0" in warned(source, tmp_path, eval_split="")


def test_different_rates(tmp_path: Path):
    arrays, rows = four_clips()
    rows = [(*row, "", fps) for row, fps in zip(rows, (30, 30, "", 25))]
    text = warned(write_folder(tmp_path / "mine", arrays, rows), tmp_path)
    assert "clips have different frame rates: 25, 30 frames/s\n  clips: test1.npy\n" in text
    assert "resample them to one rate, e.g. 30" in text


def test_lengths(tmp_path: Path):
    arrays, rows = four_clips()
    arrays |= {"long.npy": body(5, 40), "still.npy": body(6, 1)}
    rows += [("long.npy", 0, "train"), ("still.npy", 1, "test")]
    text = warned(write_folder(tmp_path / "mine", arrays, rows), tmp_path)
    assert "frames per clip: shortest 1, median 8, longest 40; max_frame is 16" in report_of(
        tmp_path
    )
    assert "1 clips are longer than max_frame 16 and will be truncated\n  clips: long.npy\n" in text
    assert f"fix: set {KEY}max_frame=40 to keep all frames" in text
    assert "1 clips have a single frame\n  clips: still.npy\n" in text


def test_wrong_total_frames(tmp_path: Path):
    clips = [
        annotation(c, n % 2, body(n)[None], total_frames=8 + (c == "d"))
        for n, c in enumerate("abcd")
    ]
    source = write_pickle(tmp_path / "x.pkl", clips, {"train": ["a", "b"], "test": ["c", "d"]})
    text = warned(source, tmp_path)
    assert (
        "1 clips have a number of frames that differs from their total_frames\n  clips: d\n" in text
    )


def test_persons(tmp_path: Path):
    pair = np.stack([body(7), body(8)])
    text = warned(with_one(tmp_path, pair), tmp_path)
    assert (
        "1 clips have up to 2 persons, but num_person is 1: the persons with the most motion"
        in text
    )
    assert "persons detected: 1 in 4 clips, 2 in 1 clips" in report_of(tmp_path)
    text = warned(with_one(tmp_path, np.stack([body(7), 0 * body(8)])), tmp_path, num_person=2)
    assert "num_person is 2, but no clip has more than 1" in text  # an empty slot is no person


# --- labels and classes ----------------------------------------------------------------------


def of_labels(tmp_path: Path, train: list[int], test: list[int]) -> Path:
    rows = [(f"{n}.npy", label, "train") for n, label in enumerate(train)]
    rows += [(f"{n + len(rows)}.npy", label, "test") for n, label in enumerate(test)]
    arrays = {row[0]: body(n) for n, row in enumerate(rows)}
    return write_folder(tmp_path / "mine", arrays, rows)


def test_labels_from_1(tmp_path: Path):
    line = refused(of_labels(tmp_path, [1, 2, 3], [1, 2, 3]), tmp_path, num_class=3)
    assert line.startswith("labels range from 1 to 3, but num_class is 3 (2.npy, 5.npy); set ")
    assert f"set {KEY}first_label=1;" in line


def test_labels_from_1_without_the_last_class(tmp_path: Path):
    text = warned(of_labels(tmp_path, [1, 2], [1, 2]), tmp_path, num_class=3)
    assert "num_class is 3, but 1 labels have no clips: 0\n" in text
    assert f"if labels start at 1, set {KEY}first_label=1 num_class=2" in text


def test_labels_from_0_and_first_label_1(tmp_path: Path):
    line = refused(of_labels(tmp_path, [0, 1], [0, 1]), tmp_path, first_label=1)
    assert "labels range from 0 to 1, but num_class is 2 and first_label is 1" in line
    assert f"set {KEY}first_label=0" in line


def test_labels_beyond_the_classes(tmp_path: Path):
    line = refused(of_labels(tmp_path, [0, 1, 5], [0, 1]), tmp_path)
    assert "labels range from 0 to 5, but num_class is 2 (2.npy)" in line
    assert f"set {KEY}num_class=6, or correct the labels" in line


def test_labels_below_0(tmp_path: Path):
    line = refused(of_labels(tmp_path, [0, -1], [0, 1]), tmp_path)
    assert "labels range from -1 to 1, but num_class is 2 (1.npy); correct the labels" in line


def test_more_classes_than_labels(tmp_path: Path):
    text = warned(of_labels(tmp_path, [0, 1], [0, 1]), tmp_path, num_class=4)
    assert "num_class is 4, but 2 labels have no clips: 2, 3\n" in text
    assert f"fix: set {KEY}num_class=2, unless you will add clips of them" in text


def test_a_class_that_is_missing_in_training(tmp_path: Path):
    text = warned(of_labels(tmp_path, [0, 1], [0, 1, 2]), tmp_path, num_class=3)
    assert "1 classes have clips in the other split but none for training: 2 (class 2)\n" in text
    assert "  clips: 4.npy\n  fix: add training clips, or remove the class" in text


def test_a_class_that_is_missing_in_evaluation(tmp_path: Path):
    text = warned(of_labels(tmp_path, [0, 1, 1], [1]), tmp_path)
    assert "1 classes have clips in the other split but none for evaluation: 0 (class 0)\n" in text
    assert "clips per class, train/eval: 0 class 0: 1/0, 1 class 1: 2/1" in report_of(tmp_path)


def test_skipped_clips_are_not_counted(tmp_path: Path):
    """Neither in the table nor as the only clip of a class in a split."""
    source = of_labels(tmp_path, [0, 1, 1, 2], [0, 1, 2])
    np.save(source / "2.npy", np.full((8, 17, 3), np.nan))
    (source / "3.npy").write_bytes(b"damaged")
    (source / "5.npy").unlink()
    text = warned(source, tmp_path, num_class=3, on_bad_file="skip")
    counts = "0 class 0: 1/1, 1 class 1: 1/0, 2 class 2: 0/1"
    assert f"clips per class, train/eval: {counts}\n" in report_of(tmp_path)
    assert "none for training: 2 (class 2)\n  clips: 6.npy\n" in text
    assert "none for evaluation: 1 (class 1)\n  clips: 1.npy\n" in text
    assert manifest_of(tmp_path / "out/original/mine")["clips"] == {"train": 2, "eval": 2}


def test_the_label_of_a_skipped_clip_is_not_examined(tmp_path: Path):
    source = of_labels(tmp_path, [0, 1, 7], [0, 1])
    (source / "2.npy").write_bytes(b"damaged")
    assert "warnings: 1" in warned(source, tmp_path, on_bad_file="skip")


# --- units -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "unit", "said", "fix"),
    [
        (1000, "metre", "size is 1[67].*: these are millimetres", "unit=millimetre"),
        (1, "millimetre", "size is 1[.][67].*: these are metres", "unit=metre"),
        (
            100,
            "metre",
            "size is 1[67].*: possibly centimetres",
            "convert the coordinates to metres",
        ),
        (0.001, "metre", "size is 0.001[67].*: too small", "convert the coordinates to metres"),
    ],
)
def test_metres_and_millimetres(tmp_path: Path, factor: float, unit: str, said: str, fix: str):
    source = four(tmp_path, lambda array: array * np.float32(factor))
    with pytest.raises(UserError, match=f"unit is {unit}, but the typical body {said}.*{fix}"):
        made(source, tmp_path / "out", unit=unit)


def test_pixels_that_are_not_normalised(tmp_path: Path):
    source = four(tmp_path, in_image((640, 480)))
    line = refused(source, tmp_path, unit="normalised")
    assert line.startswith("unit is normalised, but x reaches ")
    assert f"these are pixels; set {KEY}unit=pixel {KEY}image_size=[WIDTH,HEIGHT]" in line


def test_pixels_and_scores_given_as_metres(tmp_path: Path):
    clips = iter(range(9))
    source = four(
        tmp_path,
        lambda _: np.concatenate([640 * image(next(clips)), np.full((8, 17, 1), 0.9)], axis=2),
    )
    line = refused(source, tmp_path)
    assert f"possibly pixels, with scores as third values; set {KEY}unit=pixel" in line


def test_normalised_coordinates_given_as_pixels(tmp_path: Path):
    source = four(tmp_path, in_image())
    line = refused(source, tmp_path, unit="pixel", image_size=[640, 480])
    assert line.startswith("unit is pixel, but x and y reach only 0.")
    assert f"set {KEY}unit=normalised" in line


def test_normalised_coordinates_given_as_metres(tmp_path: Path):
    clips = iter(range(9))
    source = four(
        tmp_path,
        lambda _: np.concatenate([image(next(clips)), np.full((8, 17, 1), 0.9)], axis=2),
    )
    text = warned(source, tmp_path)
    assert (
        "unit is metre, but x and y range from 0 to 1: possibly normalised image coordinates"
        in text
    )
    assert f"set {KEY}unit=normalised, if the third values are scores" in text


@pytest.mark.parametrize(
    ("size", "fix"),
    [((640, 480), f"set {KEY}unit=pixel {KEY}image_size"), ((1, 1), f"set {KEY}unit=normalised")],
)
def test_two_dimensions_given_as_three(tmp_path: Path, size: tuple[float, float], fix: str):
    line = refused(four(tmp_path, in_image(size)), tmp_path)
    assert line.startswith("joints have 2 coordinates, but unit metre needs x, y, z")
    assert fix in line


def test_three_dimensions_given_as_two(tmp_path: Path):
    line = refused(four(tmp_path), tmp_path, unit="normalised")
    assert "third values range from 2." in line
    assert "which are not scores (0 to 1)" in line


def test_clips_of_two_and_of_three_numbers(tmp_path: Path):
    line = refused(with_one(tmp_path, image(0)), tmp_path)
    assert line.startswith("1 clips have 2 values per joint and 4 have 3 (odd.npy)")


def test_images_of_unknown_size(tmp_path: Path):
    line = refused(four(tmp_path, in_image((640, 480))), tmp_path, unit="pixel")
    assert line.startswith("unit is pixel, but 4 clips have no image size")
    assert f"set {KEY}image_size=[WIDTH,HEIGHT]" in line


def test_width_and_height_swapped(tmp_path: Path):
    source = four(tmp_path, in_image((1280, 1280)))
    keys = {"unit": "pixel"}
    line = refused(source, tmp_path, **keys, image_size=[640, 480])
    assert "4 clips have joints outside their image: x reaches " in line
    assert "the first one's image is 640 x 480" in line
    assert "seem swapped" not in line
    wide = four(tmp_path, in_image((1280, 480)))
    line = refused(wide, tmp_path, **keys, image_size=[480, 1280])
    assert "the first one's image is 480 x 1280: width and height seem swapped" in line


def test_single_clips_out_of_range(tmp_path: Path):
    array = body(9)
    array[3, 3] = 99
    text = warned(with_one(tmp_path, array), tmp_path)
    assert "1 clips have joints more than 30 m from the origin\n  clips: odd.npy\n" in text


def test_single_clips_outside_of_the_image(tmp_path: Path):
    arrays, rows = four_clips(in_image((640, 480)))
    arrays["odd.npy"] = image(9) * np.float32([640, 480])
    arrays["odd.npy"][2, 2] = (900, 20)
    source = write_folder(tmp_path / "mine", arrays, [*rows, ("odd.npy", 1, "train")])
    text = warned(source, tmp_path, unit="pixel", image_size=[640, 480])
    assert "1 clips have joints outside their image" in text
    assert "  clips: odd.npy\n" in text


def test_coordinates_that_are_centred_already(tmp_path: Path):
    clips = iter(range(9))
    text = warned(four(tmp_path, lambda _: image(next(clips)) * 2 - 1), tmp_path, unit="normalised")
    assert "x and y of most clips reach below 0: possibly centred already, or in -1 to 1" in text


def test_several_errors_are_counted_and_all_in_the_report(tmp_path: Path):
    arrays, rows = four_clips(lambda array: array * 1000)
    rows = [(file, label + 1, split) for file, label, split in rows]
    line = refused(write_folder(tmp_path / "mine", arrays, rows), tmp_path)
    assert "labels range from 1 to 2" in line
    assert "(2 errors in total)" in line
    assert report_of(tmp_path).count("ERROR: ") == 2


def test_at_most_five_clips_are_named(tmp_path: Path):
    rows = [(f"{n}.npy", n % 2, ("train", "test")[n > 5]) for n in range(12)]
    arrays = {row[0]: body(n) * 1000 for n, row in enumerate(rows)}
    arrays = {file: np.where(array > 0, np.nan, array) for file, array in arrays.items()}
    line = refused(write_folder(tmp_path / "mine", arrays, rows), tmp_path)
    assert "(0.npy, 1.npy, 2.npy, 3.npy, 4.npy and 7 more)" in line


@pytest.mark.parametrize(
    ("frames", "persons", "advised"),
    [(12_000, 1, "max_frame=12000 to keep all frames"), (8, 15, "num_person=15 to keep more"),
     (100_001, 1, "max_frame=100000 to keep the first frames"), (8, 101, "num_person=100 to")],
)  # fmt: skip
def test_the_configuration_accepts_what_the_check_advises(
    tmp_path: Path, frames: int, persons: int, advised: str
) -> None:
    layout = tmp_path / "two.yaml"
    layout.write_text("{name: two, joints: [a, b], edges: [[a, b]], centre: a}")
    clip = np.stack([body(n, 8, 2) for n in range(persons)])
    arrays, rows = four_clips(lambda array: array[:, :2])
    arrays["train0.npy"] = np.resize(clip, (persons, frames, 2, 3))
    source, keys = write_folder(tmp_path / "mine", arrays, rows), {"skeleton": str(layout)}
    assert f"fix: set {KEY}{advised}" in warned(source, tmp_path, **keys)
    name, _, value = advised.split()[0].partition("=")
    left = warned(source, tmp_path, **keys, **{name: int(value)})
    assert ("WARNING" in left) == (max(frames, persons) % 10 == 1)  # beyond the limit
    data = load_split(tmp_path / "out" / "original" / "mine", "train")[0]
    assert data.shape[2 if name == "max_frame" else 4] == int(value)
