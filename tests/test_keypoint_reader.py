"""A user's own clips, from folders and from pickles -> data on disk."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from dataset.skeletons import from_mapping, skeleton, to_mapping
from errors import UserError
from safe_pickle import load_pickle
from tests.archives import lying_archive, npy
from tests.keypoint_data import (
    annotation,
    body,
    four_clips,
    image,
    keypoint_config,
    load_split,
    made,
    manifest_of,
    write_folder,
    write_index,
    write_pickle,
)
from tests.processes import ROOT, run_python
from tests.skeleton_text import hashes


def on_disk(array: np.ndarray, max_frame: int = 16, num_person: int = 1) -> np.ndarray:
    """(M, T, V, 3) -> (C, T=max_frame, V, M), from the definition."""
    m, t, v, c = array.shape
    clip = np.zeros((c, max_frame, v, num_person), np.float32)
    clip[:, :t, :, :m] = array.transpose(3, 1, 2, 0)[:, :max_frame]
    return clip


def first_clip(folder: Path) -> np.ndarray:
    return load_split(folder, "train")[0][0]


def one_clip(folder: Path, array: np.ndarray) -> Path:
    """A data set whose first training clip is the array; the other clips are copies."""
    rows = [
        (f"{split}{label}.npy", label, split) for split in ("train", "test") for label in (0, 1)
    ]
    return write_folder(folder, {row[0]: array for row in rows}, rows)


# --- folders ---------------------------------------------------------------------------------


def test_every_form_of_file_gives_the_same_clip(tmp_path: Path):
    array = body(0)
    table = array.reshape(len(array), -1)
    head = ",".join(f"j{n}" for n in range(table.shape[1]))
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", array[None])
    np.save(tmp_path / "c.npy", table)
    np.savez(tmp_path / "d.npz", array)
    np.savez_compressed(tmp_path / "e.npz", keypoint=array, other=np.zeros(3))
    np.savetxt(tmp_path / "f.csv", table, delimiter=",", fmt="%.9g")
    np.savetxt(tmp_path / "g.csv", table, delimiter=",", fmt="%.9g", header=head, comments="")
    np.save(tmp_path / "h.npy", array.astype(np.float64))
    files = ("a.npy", "b.npy", "c.npy", "d.npz", "e.npz", "f.csv", "g.csv", "h.npy")
    rows = [(file, n % 2, "train") for n, file in enumerate(files)]
    write_index(tmp_path, [*rows, ("a.npy", 0, "other")])
    folder = made(tmp_path, tmp_path / "out", eval_split="")
    data, names, labels, lengths = load_split(folder, "train")
    assert names == list(files)  # in the order of the index
    assert labels == [0, 1] * 4
    assert lengths == [8] * 8
    assert data.shape == (8, 3, 16, 17, 1)
    assert data.dtype == np.float32
    for clip in data:
        np.testing.assert_array_equal(clip, on_disk(array[None]))


def test_the_manifest_and_the_report_say_what_it_is(tmp_path: Path):
    source = write_folder(tmp_path / "mine", *four_clips())
    write_index(source, [*four_clips()[1], ("test0.npy", 0, "spare")])
    folder = made(source, tmp_path / "out", first_label=0)
    assert folder == tmp_path / "out" / "original" / "mine"
    expected = {
        **{"kind": "keypoint", "source": str(source), "transform": False, "unit": "metre"},
        **{"splits": {"train": "train", "eval": "test"}, "skeleton": "coco-17", "num_person": 1},
        **{"max_frame": 16, "shape": [3, 16, 17, 1], "clips": {"train": 2, "eval": 2}},
        **{"num_class": 2, "class_names": ["class 0", "class 1"], "skipped": []},
    }
    manifest = manifest_of(folder)
    assert {key: manifest[key] for key in expected} == expected
    assert manifest["counters"]["in_other_splits"] == 1
    report = (folder / "report.txt").read_text()
    assert "clips: 5 listed; 2 in split 'train' for train, 2 in split 'test' for eval" in report
    assert "unused splits: 1 in spare" in report
    assert "frames per clip: shortest 8, median 8, longest 8" in report
    assert "0 class 0: 1/1, 1 class 1: 1/1" in report
    assert "errors: 0, warnings: 0" in report


def test_labels_may_count_from_1(tmp_path: Path):
    arrays, rows = four_clips()
    source = write_folder(tmp_path / "mine", arrays, [(f, n + 1, s) for f, n, s in rows])
    folder = made(source, tmp_path / "out", first_label=1)
    assert load_split(folder, "train")[2] == [0, 1]


def test_a_layout_of_ones_own_is_kept_in_the_manifest(tmp_path: Path):
    tree = {
        **{"name": "stick", "joints": ["head", "hip", "foot"], "centre": "hip"},
        "edges": [["head", "hip"], ["hip", "foot"]],
    }
    (tmp_path / "stick.yaml").write_text(yaml.safe_dump(tree))
    source = one_clip(tmp_path / "mine", body(0, num_joint=3))
    folder = made(source, tmp_path / "out", skeleton=str(tmp_path / "stick.yaml"))
    stored = manifest_of(folder)["skeleton"]
    layout = skeleton(str(tmp_path / "stick.yaml"))
    assert stored == to_mapping(layout)
    assert from_mapping(stored, "manifest") == layout
    np.testing.assert_array_equal(first_clip(folder), on_disk(body(0, num_joint=3)[None]))


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path):
    arrays = {f"clips/{n}.npy": body(n, 5 + n % 9) for n in range(30)}
    rows = [(file, n % 2, ("train", "test")[n % 3 == 0]) for n, file in enumerate(arrays)]
    source = write_folder(tmp_path / "mine", arrays, rows)
    (source / "clips/7.npy").write_bytes(b"x")
    results = [hashes(made(source, tmp_path / str(n), n, on_bad_file="skip")) for n in (1, 2)]
    assert results[0] == results[1]
    assert sorted(results[0]) == sorted(
        ["manifest.json", "report.txt", "train_data.npy", "train_label.pkl", "eval_data.npy"]
        + ["eval_label.pkl"]
    )


# --- tables ----------------------------------------------------------------------------------


def table_lines(table: np.ndarray) -> list[str]:
    return [",".join(f"{value:.9g}" for value in row) for row in table]


def numbered(rows: list[str], first: int = 0) -> list[str]:
    return [f"{n + first},{row}" for n, row in enumerate(rows)]


COLUMNS = ",".join(map(str, range(51)))
NAMES = ",".join(f"j{n}" for n in range(51))
LINE, COLUMN = "a first line of column numbers was skipped", "a first column of frame numbers was"


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        (lambda rows: [COLUMNS, *rows], [LINE]),
        (lambda rows: [",".join(f"{n}.0" for n in range(1, 52)), *rows], [LINE]),
        (lambda rows: [f",{COLUMNS}", *numbered(rows)], [LINE, COLUMN]),
        (lambda rows: [f'"",{COLUMNS}', *numbered(rows, 7)], [LINE, COLUMN]),
        (lambda rows: [f",{NAMES}", *numbered(rows)], [COLUMN]),
        (lambda rows: [f"Unnamed: 0,{NAMES}", *numbered(rows, 3)], [COLUMN]),
        (lambda rows: [f"frame,{NAMES}", *numbered(rows, 1)], [COLUMN]),
        (lambda rows: numbered(rows), [COLUMN]),
        (lambda rows: numbered(rows, 1), [COLUMN]),
    ],
)
def test_numbers_of_columns_and_frames_are_skipped_and_said(tmp_path: Path, change, notes: list):
    array = body(0)
    source = write_folder(tmp_path / "mine", *four_clips())
    lines = change(table_lines(array.reshape(8, 51)))
    (source / "a.csv").write_text("\n".join(lines) + "\n")
    write_index(source, [("a.csv", 0, "train"), *four_clips()[1]])
    folder = made(source, tmp_path / "out")
    np.testing.assert_array_equal(first_clip(folder), on_disk(array[None]))
    assert load_split(folder, "train")[3] == [8, 8, 8]
    report = (folder / "report.txt").read_text()
    for note in (LINE, COLUMN):
        assert (f"1 clips in .csv files: {note}" in report) == (note in notes)


def test_column_numbers_do_not_become_a_score(tmp_path: Path):
    points = np.concatenate([image(0), np.full((8, 17, 1), 0.5, np.float32)], axis=2)
    source = one_clip(tmp_path / "mine", points)
    (source / "a.csv").write_text("\n".join([COLUMNS, *table_lines(points.reshape(8, 51))]))
    write_index(source, [("a.csv", 0, "train"), ("test0.npy", 0, "test")])
    folder = made(source, tmp_path / "out", unit="normalised", num_class=1)
    expected = on_disk(points[None] - np.float32((0.5, 0.5, 0)))
    np.testing.assert_allclose(first_clip(folder), expected, atol=1e-7)


def test_named_and_short_columns_that_count_are_coordinates(tmp_path: Path):
    array = body(0, 3).astype(np.float64)
    array[:, 0, 0] = (1, 2, 3)
    source = one_clip(tmp_path / "mine", array)
    rows = table_lines(array.reshape(3, 51))
    (source / "a.csv").write_text("\n".join([NAMES, *rows]))
    (source / "b.csv").write_text("\n".join(rows[:2]))
    write_index(source, [("a.csv", 0, "train"), ("b.csv", 1, "train"), ("test0.npy", 0, "test")])
    data, _, _, lengths = load_split(made(source, tmp_path / "out"), "train")
    assert lengths == [3, 2]
    np.testing.assert_allclose(data[0], on_disk(array[None]), atol=1e-7)
    np.testing.assert_allclose(data[1], on_disk(array[None, :2]), atol=1e-7)


def test_joints_with_empty_cells_are_missing(tmp_path: Path):
    array = body(0)
    source = one_clip(tmp_path / "mine", array)
    rows = [row.split(",") for row in table_lines(array.reshape(8, 51))]
    rows[0][0:3] = ["", "", ""]  # the first line, at its start
    rows[1][49] = " "  # y of the last joint
    rows[2] = [""] * 51  # a frame without a person
    (source / "a.csv").write_text("\n".join(map(",".join, rows)))
    write_index(source, [("a.csv", 0, "train"), ("test0.npy", 0, "test")])
    folder = made(source, tmp_path / "out", num_class=1)
    array[0, 0] = array[1, 16] = array[2] = 0
    np.testing.assert_array_equal(first_clip(folder), on_disk(array[None]))
    report = (folder / "report.txt").read_text()
    assert "1 clips in .csv files: joints with empty cells are missing" in report
    assert manifest_of(folder)["counters"]["empty_frames"] == 1


@pytest.mark.parametrize("is_table", [True, False])
@pytest.mark.parametrize("unit", ["metre", "normalised"])
def test_x_y_z_and_visibility(tmp_path: Path, unit: str, is_table: bool):
    seen = np.full((8, 33, 1), 0.75, np.float32)
    seen[1, 2] = 0
    points = body(0, num_joint=33) if unit == "metre" else image(0, num_joint=33)
    if unit == "normalised":
        depth = np.random.default_rng(0).normal(scale=0.2, size=(8, 33, 1))
        points = np.concatenate([points, depth.astype(np.float32)], axis=2)
    clip = np.concatenate([points, seen], axis=2)
    source = one_clip(tmp_path / "mine", clip.reshape(8, 132) if is_table else clip)
    folder = made(source, tmp_path / "out", unit=unit, skeleton="mediapipe-33")
    expected = points[None]
    if unit == "normalised":
        expected = np.concatenate([points[..., :2] - np.float32(0.5), seen], axis=2)[None]
    expected[0, 1, 2] = 0
    np.testing.assert_allclose(first_clip(folder), on_disk(expected), atol=1e-7)


def test_visibility_does_not_keep_a_clip_from_being_rotated(tmp_path: Path):
    points, seen = body(0, num_joint=33), np.ones((8, 33, 1), np.float32)
    lying = np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=2)  # z is vertical
    source = one_clip(tmp_path / "mine", np.concatenate([lying, seen], axis=2))
    folder = made(source, tmp_path / "out", skeleton="mediapipe-33", up="z")
    np.testing.assert_allclose(first_clip(folder), on_disk(points[None]), atol=1e-6)


# --- units -----------------------------------------------------------------------------------


def test_millimetres_become_metres(tmp_path: Path):
    folder = made(one_clip(tmp_path, body(0) * 1000), tmp_path / "out", unit="millimetre")
    expected = (body(0) * np.float32(1000)).astype(np.float64) / 1000
    np.testing.assert_array_equal(first_clip(folder), on_disk(expected[None]).astype(np.float32))


def test_normalised_coordinates_are_centred_and_get_score_1(tmp_path: Path):
    array = image(0)
    array[2, 5] = 0  # not seen
    folder = made(one_clip(tmp_path, array), tmp_path / "out", unit="normalised")
    clip = first_clip(folder)
    expected = np.concatenate([array - 0.5, np.ones((8, 17, 1))], axis=2)
    expected[2, 5] = 0
    np.testing.assert_allclose(clip, on_disk(expected[None]), atol=1e-7)
    assert not clip[:, 2, 5].any()


def test_pixels_are_divided_by_width_and_height(tmp_path: Path):
    pixels = image(0) * np.float32([640, 480])
    with_score = np.concatenate([pixels, np.full((8, 17, 1), 0.25)], axis=2)
    with_score[1, 3, 2] = 0  # a guess of the estimator
    with_score[1, 4, :2] = 0  # another way to say the same
    source = one_clip(tmp_path, with_score)
    clip = first_clip(made(source, tmp_path / "out", unit="pixel", image_size=[640, 480]))
    expected = np.concatenate([image(0) - 0.5, np.full((8, 17, 1), 0.25)], axis=2)
    expected[1, 3:5] = 0
    np.testing.assert_allclose(clip, on_disk(expected[None]), atol=1e-6)
    assert not clip[:, 1, 3:5].any()


def test_a_joint_at_the_origin_is_missing_and_stays_zero(tmp_path: Path):
    array = body(0)
    array[3, 2] = 0
    folder = made(one_clip(tmp_path, array), tmp_path / "out")
    np.testing.assert_array_equal(first_clip(folder), on_disk(array[None]))
    assert "left_eye" not in (folder / "report.txt").read_text()
    assert "right_eye 0" not in (folder / "report.txt").read_text()
    name = skeleton("coco-17").joints[2]
    assert f"{name} 12.5%" in (folder / "report.txt").read_text()


# --- persons and frames ----------------------------------------------------------------------


def moving(*spreads: float) -> np.ndarray:
    """(M, T, V, 3): people who move so much."""
    rest = body(0)[:1]
    steps = np.random.default_rng(1).normal(size=(8, 1, 3))
    return np.stack([rest + spread * steps for spread in spreads]).astype(np.float32)


def test_those_of_widest_motion_are_kept(tmp_path: Path):
    people = moving(0.1, 0.3, 0.0, 0.2)
    folder = made(one_clip(tmp_path, people), tmp_path / "out", num_person=2)
    np.testing.assert_array_equal(first_clip(folder), on_disk(people[[1, 3]], num_person=2))
    assert manifest_of(folder)["counters"]["clips_with_extra_bodies"] == 4


def test_equal_persons_stay_in_their_order(tmp_path: Path):
    people = moving(0.1, 0.1, 0.1)
    people[1, ..., 0] *= -1  # mirrored, so that they move as much to the bit
    people[2, ..., 1] *= -1
    folder = made(one_clip(tmp_path, people), tmp_path / "out", num_person=2)
    np.testing.assert_array_equal(first_clip(folder), on_disk(people[:2], num_person=2))


def test_in_images_those_of_highest_score_are_kept(tmp_path: Path):
    levels = (0.3, 0.9, 0.6)
    people = np.stack(
        [np.concatenate([image(m), np.full((8, 17, 1), s)], axis=2) for m, s in enumerate(levels)]
    )
    folder = made(one_clip(tmp_path, people), tmp_path / "out", num_person=2, unit="normalised")
    scores = first_clip(folder)[2, 0, 0]
    np.testing.assert_allclose(scores, [0.9, 0.6], atol=1e-7)


def test_frames_beyond_max_frame_are_cut_and_counted(tmp_path: Path):
    array = body(0, num_frame=20)
    folder = made(one_clip(tmp_path, array), tmp_path / "out")
    np.testing.assert_array_equal(first_clip(folder), on_disk(array[None, :16]))
    assert manifest_of(folder)["counters"]["cut_clips"] == 4
    assert load_split(folder, "train")[3] == [16, 16]


def test_persons_in_files_of_their_own_are_put_together(tmp_path: Path):
    people = moving(0.3, 0.1)
    arrays, rows = {}, []
    for split in ("train", "test"):
        for label in (0, 1):
            for person in (1, 0):  # in any order
                file = f"{split}/{label}_p{person}.npy"
                arrays[file] = people[person]
                rows.append((file, label, split, person))
    source = write_folder(tmp_path / "mine", arrays, rows)
    folder = made(source, tmp_path / "out", num_person=2)
    assert load_split(folder, "train")[1] == ["train/0", "train/1"]
    np.testing.assert_array_equal(first_clip(folder), on_disk(people, num_person=2))
    for file, array in arrays.items():  # tables as well
        np.save(source / file, array.reshape(8, -1))
    again = made(source, tmp_path / "again", num_person=2)
    np.testing.assert_array_equal(first_clip(again), on_disk(people, num_person=2))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a_p0.npy", 0, "train", 0), ("a_p2.npy", 0, "train", 2)], "a has persons 0, 2; must be"),
        (
            [("a_p0.npy", 0, "train", 0), ("a_p0.npy", 0, "train", 0)],
            "line 3: duplicate person 0 of a",
        ),
        ([("a_p0.npy", 0, "train", 0), ("a_p1.npy", 1, "train", 1)], "line 3: label or fps differ"),
        ([("a_p0.npy", 0, "train", 1)], "line 2: person is '1' and file 'a_p0.npy'; must be 0, 1"),
        ([("a.npy", 0, "train", "anna")], "line 2: person is 'anna' and file 'a.npy'"),
    ],
)
def test_persons_that_make_no_sense_are_refused(tmp_path: Path, rows: list, said: str):
    with pytest.raises(UserError, match=f"index.csv.*{said}"):
        made(write_index(tmp_path, rows), tmp_path / "out")


def test_persons_of_different_length_are_named(tmp_path: Path):
    arrays, rows = four_clips()
    arrays |= {"a_p0.npy": body(0, 8), "a_p1.npy": body(1, 9)}
    rows += [("a_p0.npy", 0, "train", 0), ("a_p1.npy", 0, "train", 1)]
    with pytest.raises(UserError, match=r"a: arrays \(T, V, C\) of its persons are \[\(8, 17, 3"):
        made(write_folder(tmp_path, arrays, rows), tmp_path / "out")


# --- index.csv -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line is '', without file, label, split"),
        ("file;label;split\n", "its first line is 'file;label;split', without file"),
        ("file,lable,split\n", "without label; allowed: file,label,split"),
        ("file,label,split\n", "lists no clips"),
        ("file,label,split\na.npy,0\n", "line 2: 2 fields; must be 3"),
        ("file,label,split\n,0,train\n", "line 2: file is ''; must be a path inside"),
        ("file,label,split\n../a.npy,0,train\n", "line 2: file is '../a.npy'; must be a path"),
        ("file,label,split\n/etc/a.npy,0,train\n", "line 2: file is '/etc/a.npy'; must be"),
        ("file,label,split\nx\\..\\..\\a.npy,0,train\n", "must be a path inside"),
        ("file,label,split\nC:\\a.npy,0,train\n", "must be a path inside"),
        ("file,label,split\na.txt,0,train\n", "line 2: file is 'a.txt'; must end in .npy, .npz"),
        (
            "file,label,split\na.npy,wave,a\nb.npy,0,a\n",
            "line 2: label is 'wave'; must be an integer",
        ),
        ("file,label,split\na.npy,1.5,train\n", "line 2: label is '1.5'; must be an integer"),
        ("file,label,split\n\na.npy,0,\n", "line 3: split is blank"),
        ("file,label,split,fps\na.npy,0,train,fast\n", "line 2: fps is 'fast'"),
        ("file,label,split,fps\na.npy,0,train,3_0\n", "line 2: fps is '3_0'"),
        ("file,label,split,fps\na.npy,0,train,\u0663\u0660\n", "line 2: fps is"),
        ("file,label,split,person\na_p\u0660.npy,0,train,\u0660\n", "line 2: person is"),
        ("file,label,split\na.npy,\u0663,train\n", "line 2: label is '\u0663'; must be"),
        ('file,label,split\n"a.npy,0,train\n', "not readable as CSV"),
        (b"file,label,split\n\xff.npy,0,train\n", "not UTF-8 text"),
    ],
)
def test_an_index_that_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, said: str
):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "index.csv").write_bytes(data)
    with pytest.raises(UserError) as caught:
        made(tmp_path, tmp_path / "out")
    assert str(caught.value).startswith(str(tmp_path / "index.csv"))
    assert said in str(caught.value)


def test_an_index_from_a_spreadsheet_is_read(tmp_path: Path):
    arrays, rows = four_clips()
    write_folder(tmp_path, {f"x/{file}": array for file, array in arrays.items()}, rows)
    lines = ["Label, Split ,File,note", *(f"{n},{s}, x\\{f} ,hello" for f, n, s in rows), ",,,"]
    (tmp_path / "index.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    folder = made(tmp_path, tmp_path / "out")
    assert load_split(folder, "train")[1] == ["x/train0.npy", "x/train1.npy"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "dataset_args.keypoint.source_path is '', which does not exist; give a pickle"),
        ("nowhere", "which does not exist"),
        ("empty", "a folder without index.csv"),
        ("file.txt", "neither a folder nor a .pkl"),
    ],
)
def test_useless_paths_are_refused(tmp_path: Path, path: str, said: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    config = keypoint_config(tmp_path, tmp_path / "out", source_path=path and str(tmp_path / path))
    from generator import generate

    with pytest.raises(UserError, match=said):
        generate(config, workers=1, progress=False)


# --- damaged and hostile files ---------------------------------------------------------------


def damage(folder: Path) -> dict[str, str]:
    """Bad files and why they are."""
    np.save(folder / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "text.npy", np.array(["a", "b"]))
    np.save(folder / "flat.npy", np.zeros(51))
    np.save(folder / "five.npy", np.zeros((8, 17, 5)))
    np.save(folder / "none.npy", np.zeros((0, 17, 3)))
    np.savez(folder / "two.npz", a=body(0), b=body(0))
    (folder / "cut.npy").write_bytes((folder / "train0.npy").read_bytes()[:-9])
    (folder / "cut.npz").write_bytes((folder / "two.npz").read_bytes()[:-90])
    (folder / "words.csv").write_text("x,y\n1,2\n3,four\n")
    (folder / "ragged.csv").write_text("1,2\n3\n")
    (folder / "empty.csv").write_text("\n")
    return {
        "object.npy": "not readable as npy: Object arrays cannot be loaded",
        "text.npy": "an array of <U1; must be numbers",
        "flat.npy": "an array of shape (51,); must be (M persons",
        "five.npy": "an array of shape (8, 17, 5); must be (M persons",
        "none.npy": "an array of shape (0, 17, 3); must be (M persons",
        "two.npz": "contains arrays a, b; must be one, or one called keypoint",
        "cut.npy": "not readable as npy",
        "cut.npz": "not readable as npz: File is not a zip file",
        "words.csv": "not readable as csv: could not convert string 'four'",
        "ragged.csv": "not readable as csv",
        "empty.csv": "contains no numbers",
        "gone.npy": "cannot be read: No such file",
    }


def test_bad_files_are_named_or_skipped(tmp_path: Path):
    arrays, rows = four_clips()
    source = write_folder(tmp_path / "mine", arrays, rows)
    reasons = damage(source)
    write_index(source, [*rows, *((file, 0, "train") for file in reasons)])
    with pytest.raises(UserError, match="^12 clips cannot be read .*on_bad_file=skip; full report"):
        made(source, tmp_path / "out")
    folder = made(source, tmp_path / "out", on_bad_file="skip")
    assert load_split(folder, "train")[1] == ["train0.npy", "train1.npy"]
    skipped = {entry["file"]: entry["reason"] for entry in manifest_of(folder)["skipped"]}
    assert set(skipped) == set(reasons)
    for file, reason in reasons.items():
        assert skipped[file].startswith(reason)


def test_long_lists_are_read_or_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from dataset.protocols import DataSpec
    from reader.keypoint import folder as keypoint_folder
    from reader.keypoint.labels import numbers_of
    from reader.keypoint.types import Wanted

    spec = DataSpec("mine", 2, skeleton("ntu-25"), 1, 16, ("class 0", "class 1"))
    wanted = Wanted(spec, {}, 0, "metre", None, skip_bad=False)
    texts = [f"name {n:06d}" for n in range(60_000)]
    numbers, _ = numbers_of(texts, [""] * len(texts), wanted)
    assert numbers == list(range(60_000))
    index = tmp_path / "index.csv"
    index.write_text("file,label,split\n\n" + "a.npy,0,train\n \n" * 5)
    assert [entry.location for entry in keypoint_folder.Folder(str(tmp_path), wanted).entries] == [
        ("a.npy",)
    ] * 5
    monkeypatch.setattr(keypoint_folder, "MAX_ROWS", 4)
    with pytest.raises(UserError, match=r"index.csv: more than 4 rows; split the data"):
        keypoint_folder.Folder(str(tmp_path), wanted)


@pytest.mark.parametrize("cell", ["1_0", "\u0661", "0x1"])
def test_cells_of_a_table_are_numbers_in_ascii(tmp_path: Path, cell: str):
    from reader.clip import BadRecording
    from reader.keypoint.folder import read_array

    for lines in (f"{cell},2,3\n{cell},2,3\n", f"1,2,3\n1,2,{cell}\n"):
        (tmp_path / "a.csv").write_text(lines)
        with pytest.raises(BadRecording, match=r"a.csv, not readable as csv: .*could not convert"):
            read_array(str(tmp_path / "a.csv"))


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from reader.clip import BadRecording
    from reader.keypoint import folder as keypoint_folder

    np.savez_compressed(tmp_path / "a.npz", np.zeros((1000, 17, 3)))
    np.save(tmp_path / "a.npy", np.zeros((1000, 17, 3)))
    monkeypatch.setattr(keypoint_folder, "MAX_BYTES", 100_000)
    lying_archive(tmp_path / "b.npz", "a.npy", npy(np.zeros((1000, 17, 3))))
    for name, message in {
        "a.npz": "408128 bytes unpacked; allowed: 100000",
        "a.npy": "100,?000",
        "b.npz": "'a.npy' is neither stored nor deflated",
    }.items():
        with pytest.raises(BadRecording, match=message):
            keypoint_folder.read_array(str(tmp_path / name))


def test_a_signalling_nan_gives_no_warning_of_numpy(tmp_path: Path, recwarn):
    """The check of the values names it."""
    arrays, rows = four_clips()
    values = np.frombuffer(b"\x01\x00\xa0\x7f" * arrays["train0.npy"].size, "<f4")
    arrays["train0.npy"] = values.reshape(arrays["train0.npy"].shape)
    write_folder(tmp_path, arrays, rows)
    with pytest.raises(UserError, match="train0"):
        made(tmp_path, tmp_path / "out")
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


# --- pickles ---------------------------------------------------------------------------------


def two_splits(**more: object) -> tuple[list[dict], dict[str, list[str]]]:
    names = ("a", "b", "c", "d", "e")
    clips = [annotation(name, n % 2, body(n)[None], **more) for n, name in enumerate(names)]
    return clips, {"xsub_train": ["a", "b"], "xsub_val": ["c", "d"], "tiny": ["a", "e"]}


def test_a_pickle_of_three_dimensions(tmp_path: Path):
    source = write_pickle(tmp_path / "x.pkl", *two_splits(total_frames=8))
    keys = {"train_split": "xsub_train", "eval_split": "xsub_val"}
    folder = made(source, tmp_path / "out", workers=2, **keys)
    data, names, labels, lengths = load_split(folder, "eval")
    assert (names, labels, lengths) == (["c", "d"], [0, 1], [8, 8])
    np.testing.assert_array_equal(data[1], on_disk(body(3)[None]))
    manifest = manifest_of(folder)
    assert manifest["splits"] == {"train": "xsub_train", "eval": "xsub_val"}
    assert manifest["counters"]["in_other_splits"] == 1
    assert "unused splits: 2 in tiny" in (folder / "report.txt").read_text()


def test_a_pickle_of_pixels_with_scores_and_a_size_a_clip(tmp_path: Path):
    clips, sizes = [], ((240, 320), (1080, 1920))
    for n, (height, width) in enumerate([*sizes, *sizes]):
        pixels = (image(n) * (width, height))[None].astype(np.float16)
        score = np.full((1, 8, 17), 0.5, np.float16)
        score[0, 1, 2] = 0
        size = {"img_shape": (height, width), "original_shape": (9, 9)}
        clips.append(annotation("abcd"[n], n % 2, pixels, keypoint_score=score, **size))
    source = write_pickle(tmp_path / "x.pkl", clips, {"train": ["a", "b"], "test": ["c", "d"]})
    folder = made(source, tmp_path / "out", unit="pixel")
    data = load_split(folder, "train")[0]
    for n, (height, width) in enumerate(sizes):
        shares = clips[n]["keypoint"].astype(np.float64) / (width, height) - 0.5
        expected = np.concatenate([shares, np.full((1, 8, 17, 1), 0.5)], axis=3)
        expected[0, 1, 2] = 0
        np.testing.assert_allclose(data[n], on_disk(expected), atol=1e-7)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"frame_dir": "a"}], "a list of annotations, the format of mmaction2 before 1.0"),
        ({"annotations": []}, "must contain a dict with 'split' and 'annotations'"),
        ({"split": {"train": ["a"]}, "annotations": []}, "'annotations' is not a list, or empty"),
        ({"split": ["a"], "annotations": [1]}, "'split' must be a dict"),
        ({"split": {"train": "a"}, "annotations": [1]}, "split 'train' must be a list"),
        ({"split": {"train": ["a"]}, "annotations": [1]}, r"annotations\[0\] is not a dict"),
        ({"split": {"train": ["a"]}, "annotations": [{}]}, r"annotations\[0\] has no frame_dir"),
        (
            {"split": {"train": ["a"]}, "annotations": [{"frame_dir": "a", "label": [1, 2]}]},
            r"a: label is \[1, 2\]; must be an integer",
        ),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: object, said: str):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=f"x.pkl: {said}"):
        made(path, tmp_path / "out")


@pytest.mark.parametrize("ending_in_list", [True, False])
def test_split_lists_with_file_endings(tmp_path: Path, ending_in_list: bool):
    clips, splits = two_splits()
    for clip in clips:
        clip["frame_dir"] += "" if ending_in_list else ".mp4"
    if ending_in_list:
        splits = {split: [f"{name}.avi" for name in names] for split, names in splits.items()}
    splits["xsub_train"].append("v.1")  # unknown with and without what follows its dot
    source = write_pickle(tmp_path / "x.pkl", clips, splits)
    keys = {"train_split": "xsub_train", "eval_split": "xsub_val"}
    folder = made(source, tmp_path / "out", **keys)
    names = ["a", "b"] if ending_in_list else ["a.mp4", "b.mp4"]
    assert load_split(folder, "train")[1:3] == (names, [0, 1])
    report = (folder / "report.txt").read_text()
    example = "a.avi = a" if ending_in_list else "a = a.mp4"
    assert f"split lists: 5 names by file ending, e.g. {example}" in report
    assert "the splits list 1 clips without annotation: v.1" in report


def test_file_endings_that_could_mean_several_clips_stay_unread(tmp_path: Path):
    clips, _ = two_splits()
    clips[2]["frame_dir"], clips[3]["frame_dir"] = "c.mp4", "c.avi"
    splits = {"train": ["a", "b"], "test": ["e", "c", "a.mp4"]}  # a is listed as itself
    folder = made(write_pickle(tmp_path / "x.pkl", clips, splits), tmp_path / "out")
    assert load_split(folder, "train")[1] == ["a", "b"]
    assert load_split(folder, "eval")[1] == ["e"]
    assert "the splits list 2 clips without annotation: c, a.mp4" in (
        (folder / "report.txt").read_text()
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda n: np.int32(n),
        lambda n: float(n),
        lambda n: [n],
        lambda n: np.array([[n]]),
        lambda n: np.eye(3)[n],
        lambda n: np.eye(3, dtype=bool)[None, n],
        lambda n: str(n),
    ],
)
def test_labels_in_every_unambiguous_form(tmp_path: Path, form):
    clips, splits = two_splits()
    for n, clip in enumerate(clips):
        clip["label"] = form(n % 3)
    source = write_pickle(tmp_path / "x.pkl", clips, splits)
    keys = {"train_split": "xsub_train", "eval_split": "xsub_val", "num_class": 3}
    folder = made(source, tmp_path / "out", **keys)
    assert load_split(folder, "train")[2] + load_split(folder, "eval")[2] == [0, 1, 2, 0]


@pytest.mark.parametrize(
    "label", [True, 1.5, [0, 0], [1, 1], [1, 0, 0], [], None, "", [[0, 1], [1, 0]], b"a"]
)
def test_other_labels_are_named(tmp_path: Path, label: object):
    clips, splits = two_splits()
    clips[1]["label"] = label
    source = write_pickle(tmp_path / "x.pkl", clips, splits)
    said = f"x.pkl: b: label is {re.escape(repr(label))}; must be an integer, one-hot, or"
    with pytest.raises(UserError, match=said):
        made(source, tmp_path / "out", train_split="xsub_train", eval_split="xsub_val")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("names", ["", "walk\nrun\n"])
def test_names_of_classes_as_labels(tmp_path: Path, names: str, first: int):
    arrays, rows = four_clips()
    rows = [(file, ("walk", "run")[label], split) for file, label, split in rows]
    source = write_folder(tmp_path / "mine", arrays, rows)
    (tmp_path / "names.txt").write_text(names)
    keys = {"class_names": str(tmp_path / "names.txt") if names else "", "first_label": first}
    folder = made(source, tmp_path / "out", **keys)
    numbers = [0, 1] if names else [1, 0]  # by the file, or sorted
    assert load_split(folder, "train")[2] == load_split(folder, "eval")[2] == numbers
    report = " ".join((folder / "report.txt").read_text().split())
    if names:
        assert f"names, numbered as in dataset_args.keypoint.class_names: {first} walk," in report
    else:
        assert "numbered in sorted order; list them in a file and set" in report
        assert f"class_names=FILE.txt: {first} run, {first + 1} walk" in report


def test_a_name_that_is_no_class_is_named_with_its_line(tmp_path: Path):
    arrays, rows = four_clips()
    rows = [(file, ("walk", "runn")[label], split) for file, label, split in rows]
    source = write_folder(tmp_path / "mine", arrays, rows)
    (tmp_path / "names.txt").write_text("walk\nrun\n")
    with pytest.raises(UserError, match="line 3: label is 'runn', not in .*did you mean run"):
        made(source, tmp_path / "out", class_names=str(tmp_path / "names.txt"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(UserError, match="not a pickle of plain data: os.system is not admitted"):
        made(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keypoint": [1, 2]}, "keypoint is not an array"),
        ({"keypoint_score": np.ones((1, 7, 17))}, r"keypoint_score is float64 \(1, 7, 17\); must"),
        ({"img_shape": (1, -2)}, r"img_shape is \(1, -2\); must be \(height, width\)"),
        ({"img_shape": "big"}, "img_shape is big"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path: Path, change: dict, said: str):
    clips, splits = two_splits()
    clips[1] |= change
    source = write_pickle(tmp_path / "x.pkl", clips, splits)
    with pytest.raises(UserError, match=rf"^1 clips cannot be read \(b: {said}"):
        made(source, tmp_path / "out", train_split="xsub_train", eval_split="xsub_val")


def test_utd_mhad(samples: Path, tmp_path: Path):
    source = samples / "samples" / "utd_mhad" / "utd_mhad.pkl"
    keys = {"skeleton": "kinect-20", "num_class": 27, "max_frame": 128}
    folder = made(source, tmp_path / "out", **keys)
    content = load_pickle(source)
    annotations = {entry["frame_dir"]: entry for entry in content["annotations"]}
    for phase, split, count in (("train", "train", 431), ("eval", "test", 430)):
        data, names, labels, lengths = load_split(folder, phase)
        assert data.shape == (count, 3, 128, 20, 1)
        assert set(names) == set(content["split"][split])
        for n in range(0, count, 43):
            entry = annotations[names[n]]
            assert (labels[n], lengths[n]) == (entry["label"], entry["total_frames"])
            np.testing.assert_array_equal(data[n], on_disk(entry["keypoint"], max_frame=128))
    report = (folder / "report.txt").read_text()
    assert "errors: 0, warnings: 0" in report
    assert "frames per clip: shortest 41, median 67, longest 125" in report


def test_the_documentation_is_true(tmp_path: Path):
    """docs/data.md: its code makes data, its layout and configuration fit them, and the report is
    the one that it shows."""
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (layout, config), (code,) = (
        [text for kind, text in blocks if kind == wanted] for wanted in ("yaml", "python")
    )
    (tmp_path / "stick.yaml").write_text(layout)
    (tmp_path / "sports.yaml").write_text(config.replace("1101", str(ROOT / "configs/1101.yaml")))
    for command in (["-c", code], [ROOT / "main.py", "-c", "sports.yaml", "-gd", "--workers", "1"]):
        done = run_python(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (report,) = (tmp_path / "data").rglob("report.txt")
    assert report.read_text() == next(text for kind, text in blocks if "Data check" in text)


def test_generation_of_ones_own_data_does_not_import_paddle(tmp_path: Path):
    source = write_folder(tmp_path / "mine", *four_clips())
    (tmp_path / "mine.yaml").write_text(
        f"base: 1001\ndataset: mine\ndataset_args:\n  keypoint: {{source_path: '{source}', "
        f"root_folder: '{tmp_path / 'out'}', num_class: 2}}\n"
    )
    code = (
        "import sys, main; code = main.main(sys.argv[1:]); "
        "sys.exit(code or 3 * ('paddle' in sys.modules))"
    )
    done = run_python("-c", code, "-c", tmp_path / "mine.yaml", "-gd", "-np", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "Data check of" in done.stdout
    assert "wrote 2 training and 2 evaluation clips to" in done.stdout
