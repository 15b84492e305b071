"""Data on disk: what is found, what is refused; tiny sets; the feeder."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import safe_pickle
from dataset import tiny_data_gen
from dataset.feeder import ClipFeeder, StepSampler, data_loader, eval_sampler
from dataset.pipeline import ClipPipeline
from dataset.protocols import DataSpec
from dataset.skeletons import skeleton
from dataset.storage import ClipSet, content_hash, open_clips, open_split
from errors import UserError, run_command

NTU_25 = skeleton("ntu-25")


def write_set(folder: Path, phase: str = "eval", count: int = 10, **manifest) -> Path:
    """`count` clips of 20 frames, labels 0, 1, 2, 0, 1, ... and a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    data = np.random.RandomState(0).standard_normal((count, 3, 20, 25, 2)).astype(np.float32)
    np.save(folder / f"{phase}_data.npy", data)
    names = [f"S001C001P{n + 1:03d}R001A001.skeleton" for n in range(count)]
    label = (names, [n % 3 for n in range(count)], [20] * count)
    (folder / f"{phase}_label.pkl").write_bytes(pickle.dumps(label))
    manifest = {"transform": False, "dataset": "ntu-xsub", **manifest}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / f"{phase}_data.npy"


def feeder_of(
    clips: ClipSet, *, num_frame: int, inputs: str = "J", num_class: int = 3, num_person: int = 2
) -> ClipFeeder:
    spec = DataSpec("any", num_class, NTU_25, num_person, 20, ("",) * num_class)
    return ClipFeeder(clips, spec, ClipPipeline(inputs, num_frame), seed=0)


def test_open_clips_maps_the_file(tmp_path: Path) -> None:
    clips = open_clips(write_set(tmp_path))
    assert isinstance(clips.data, np.memmap) and len(clips) == 10
    assert clips.names[1] == "S001C001P002R001A001.skeleton"
    assert clips.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0] and clips.lengths[0] == 20
    assert clips.manifest["transform"] is False


def test_labels_of_the_public_ports(tmp_path: Path) -> None:
    """(paths, labels) pairs with folders in the names, and a file called x.npy with x_label.pkl."""
    np.save(tmp_path / "tiny.npy", np.ones((2, 3, 4, 25, 2), np.float32))
    (tmp_path / "tiny_label.pkl").write_bytes(pickle.dumps((["a/b.skeleton", "c\\d"], [1, 0]), 2))
    clips = open_clips(tmp_path / "tiny.npy")
    assert clips.names == ["b.skeleton", "d"] and clips.lengths is None and clips.manifest is None


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (["/data/ntu/b.skeleton", "/data/ntu/c.skeleton"], ["b.skeleton", "c.skeleton"]),
        (["/data/walk/003.npy", "/data/run/003.npy"], ["walk/003.npy", "run/003.npy"]),
        (["D:\\walk\\a\\1.npy", "D:\\walk\\b\\1.npy"], ["a/1.npy", "b/1.npy"]),
        (["/data/walk.v1/3.npy", "/data/walk.v2/3.npy"], ["walk.v1/3.npy", "walk.v2/3.npy"]),
        (["3.npy", "walk/3.npy"], ["3.npy", "walk/3.npy"]),
    ],
)
def test_paths_of_public_labels_lose_the_folders_that_tell_nothing_apart(
    tmp_path: Path, stored: list[str], names: list[str]
) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3, 4, 25, 2), np.float32))
    (tmp_path / "x_label.pkl").write_bytes(pickle.dumps((stored, [1, 0])))
    assert open_clips(tmp_path / "x.npy").names == names


def test_names_of_this_project_keep_their_folders(tmp_path: Path) -> None:
    data = write_set(tmp_path, count=3)
    names = ["walk/003.npy", "run/003.npy", "run/004.npy"]
    (tmp_path / "eval_label.pkl").write_bytes(pickle.dumps((names, [0, 1, 1], [20] * 3)))
    assert open_clips(data).names == names


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[1], [0], [2]]),
        [[1], [0], [2]],
        [np.array([1]), np.array([0]), np.array([2])],
        np.eye(3)[[1, 0, 2]],
        np.eye(3, dtype=bool)[[1, 0, 2]].tolist(),
        np.array([1.0, 0.0, 2.0]),
    ],
)
def test_labels_as_columns_and_one_hot(tmp_path: Path, labels: object) -> None:
    data = write_set(tmp_path, count=3)
    (tmp_path / "eval_label.pkl").write_bytes(pickle.dumps((["a", "b", "c"], labels)))
    found = open_clips(data).labels
    assert found.tolist() == [1, 0, 2] and found.dtype == np.int64


def test_data_without_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3, 4, 25, 2), np.float32))
    clips = open_clips(tmp_path / "x.npy")
    assert clips.labels is None and clips.names == ["clip-0", "clip-1"]
    with pytest.raises(UserError, match="no label file"):
        feeder_of(clips, num_frame=4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3, 4, 25), np.float32), r"\(N, 3, T, V, M\)"),
        (np.ones((2, 2, 4, 25, 2), np.float32), r"\(N, 3, T, V, M\)"),
        (np.ones((0, 3, 4, 25, 2), np.float32), "at least one clip"),
        (np.ones((1, 3, 4, 25, 2), np.int32), "int32"),
        (np.array([{}], dtype=object), "not an npy file"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        open_clips(tmp_path / "x.npy")


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        open_clips(tmp_path / "none.npy")
    with pytest.raises(UserError, match=r"train_data.npy not found in .*; run: make it"):
        open_split(tmp_path, "train", "make it")
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], content[:50], b"", b"PK\3\4garbage"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="eval_data.npy"):
            open_clips(file)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": 1}, "allowed: a pickle of"),
        ((["a"] * 10, [0] * 9), "9 labels for 10 clips"),
        ((["a" * 1001] * 10, [0] * 10), "a name of 1001 letters; allowed: 1000"),
        ((["a"] * 10, [0.5] * 10), "integers"),
        ((["a"] * 10, ["x"] * 10), "integers"),
        ((["a"] * 10, [-1] * 10), "label -1"),
        ((["a"] * 10, np.ones((10, 2))), r"label of clip 0 is \[1.0, 1.0\]; allowed: integers"),
        ((["a"] * 10, [[0, 1]] * 9 + [[0, 0, 1]]), r"label of clip 9 is \[0, 0, 1\]"),
        (("abcdefghij", [0] * 10), "not a list of names"),
        ((["a"] * 10, np.array(5)), "not a list of labels"),
        ((["a"] * 10, [0] * 10, [5] * 3), "3 lengths"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, labels: object, message: str) -> None:
    file = write_set(tmp_path)
    (tmp_path / "eval_label.pkl").write_bytes(pickle.dumps(labels))
    with pytest.raises(UserError, match=message):
        open_clips(file)


def test_wrong_manifest_is_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path)
    for text in ("{", "[]", '{"transform": "yes"}', "[" * 100_000):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"manifest.json"):
            open_clips(file)


def test_feeder_refuses_what_does_not_fit(tmp_path: Path) -> None:
    clips = open_clips(write_set(tmp_path))
    for settings, message in (
        ({"num_frame": 21}, "needs 25 joints .* and 21 frames"),
        ({"num_frame": 20, "num_class": 2}, "label 2; allowed: 0 to 1"),
        ({"num_frame": 20, "num_person": 1}, "2 persons .* needs 25 joints .* 1 persons"),
    ):
        with pytest.raises(UserError, match=message):
            feeder_of(clips, **settings)


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders(tmp_path: Path, workers: int) -> None:
    """Evaluation: all clips in order. Training: whole batches, shuffled by epoch alone; a set
    smaller than a batch still gives one."""
    clips = open_clips(write_set(tmp_path))
    feeder = feeder_of(clips, inputs="JB", num_frame=12)
    loader = data_loader(feeder, eval_sampler(10, 4), workers, feeder.item_bytes)
    seen = [n for _, _, index in loader for n in index.tolist()]
    assert seen == list(range(10))

    def order(epoch: int, batch: int = 4) -> list[list[int]]:
        sampler = StepSampler(10, batch)
        sampler.set_epoch(epoch)
        return [index.tolist() for _, _, index in data_loader(feeder, sampler, workers, 8)]

    first = order(1)
    assert [len(b) for b in first] == [4, 4] and first == order(1) and first != order(2)
    assert [len(b) for b in order(1, batch=16)] == [10]
    tensor, label, index = feeder[7]
    assert tensor.shape == (50, 12, 12) and (label, index) == (1, 7)
    np.testing.assert_array_equal(tensor[25 + 3, 1], clips.data[7, 1, :12, 3, 1])


def test_tiny_keeps_class_balance(tmp_path: Path) -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50)
    chosen = tiny_data_gen.choose_clips(labels, 12, seed=0)
    assert np.bincount(labels[chosen]).tolist() in ([5, 3, 4], [4, 3, 5])
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, tiny_data_gen.choose_clips(labels, 12, seed=0))
    assert (chosen != tiny_data_gen.choose_clips(labels, 12, seed=1)).any()
    assert len(tiny_data_gen.choose_clips(labels, 1000, seed=0)) == 103


def test_tiny_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "npy"
    big = open_clips(write_set(source / "original" / "ntu-xsub"))
    write_set(source / "transformed" / "ntu-xview", transform=True)
    argv = ["--source_path", str(source), "--data_num", "4", "--save_dir", str(tmp_path / "tiny")]
    assert tiny_data_gen.main(argv) == 0
    tiny = open_split(tmp_path / "tiny/original/ntu-xsub", "eval", "-")
    assert len(tiny) == 4 and tiny.manifest["tiny"]["eval"]["data_num"] == 4
    assert tiny.manifest["clips"] == {"eval": 4}
    assert tiny.manifest["sha256"] == {"eval": content_hash(tiny.names, tiny.labels.tolist())}
    for name, label, clip in zip(tiny.names, tiny.labels, tiny.data):
        where = big.names.index(name)
        assert big.labels[where] == label
        np.testing.assert_array_equal(clip, big.data[where])
    assert open_split(tmp_path / "tiny/transformed/ntu-xview", "eval", "-").manifest["transform"]
    capsys.readouterr()
    for wrong, message in (
        (["--source_path", str(tmp_path / "none")], "no eval_data.npy"),
        ([*argv, "--mode", "train"], "no train_data.npy"),
        ([*argv, "--data_num", "0"], "--data_num must be 1 or more"),
        ([*argv, "--seed", "-1"], "--seed 0 to"),
        ([*argv, "--save_dir", str(source)], "overwrite its source"),
    ):
        assert run_command(lambda wrong=wrong: tiny_data_gen.main(wrong)) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("renamed", range(4))
def test_a_killed_tiny_run_leaves_no_clips_with_labels_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    """Over an older cut of the same size, after `renamed` of its three files."""
    source, target = write_set(tmp_path / "npy"), tmp_path / "tiny"
    tiny_data_gen.write_tiny(source.parent, target, "eval", 4, seed=1)
    before = open_split(target, "eval", "-")
    old, replace, done = np.array(before.data), os.replace, []

    def kill(part: object, path: object) -> None:
        if len(done) == renamed:
            raise KeyboardInterrupt
        done.append(path)
        replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with contextlib.suppress(KeyboardInterrupt):
            tiny_data_gen.write_tiny(source.parent, target, "eval", 4, seed=2)
    big = open_clips(source)
    if renamed == 3:
        clips = open_split(target, "eval", "-")
        assert (np.array(clips.data) != old).any()
        for name, label, clip in zip(clips.names, clips.labels, clips.data):
            assert label == big.labels[big.names.index(name)]
            np.testing.assert_array_equal(clip, big.data[big.names.index(name)])
    else:
        with pytest.raises(UserError, match="eval_data.npy not found"):
            open_split(target, "eval", "-")
    tiny_data_gen.write_tiny(source.parent, target, "eval", 4, seed=2)
    assert len(open_split(target, "eval", "-")) == 4


def test_labels_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "npy")
    clips = open_clips(data)
    manifest = {"transform": False, "sha256": {"eval": content_hash(clips.names, clips.labels)}}
    (data.parent / "manifest.json").write_text(json.dumps(manifest))
    assert len(open_clips(data)) == len(clips)
    with open(data.with_name("eval_label.pkl"), "wb") as file:
        safe_pickle.dump_pickle((clips.names, clips.labels[::-1].tolist()), file)
    with pytest.raises(UserError, match="not those of manifest.json"):
        open_clips(data)
