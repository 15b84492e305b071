"""Pipes, devices, folders, enormous files and odd names in the place of each kind of file that a
user names: one line, at once, without filling memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import configs
from apps.video.frames import open_media
from dataset.kinetics_labels import read_labels
from dataset.protocols import DataSpec
from dataset.skeletons import skeleton
from dataset.storage import open_clips, read_manifest
from deploy import predictions
from deploy.engines.program_check import check_program
from deploy.meta import read_meta
from errors import UserError
from reader.keypoint.folder import Folder, read_array
from reader.keypoint.types import Wanted
from reader.ntu.recordings import find_recordings
from reader.recording import form_of, read_recording
from report import read_scores
from safe_io import file_hash, open_npy, read_npz, read_text, read_yaml_file
from safe_pickle import load_pickle
from training.checkpoint import load_checkpoint

SECONDS = 20.0  # that a reader may take to refuse a file
NTU = skeleton("ntu-25")
SPEC = DataSpec("mine", 2, NTU, 1, 16, ("a", "b"))
WANTED = Wanted(SPEC, {}, 0, "metre", None, skip_bad=False)


def _recording(path: Path) -> Any:
    return read_recording(path, form_of(NTU, 2, is_3d=True))


# File name -> what reads it.
READERS: dict[str, Callable[[Path], Any]] = {
    "names.txt": read_text,
    "settings.yaml": read_yaml_file,
    "9999.yaml": lambda path: configs.load(str(path)),
    "layout.yaml": lambda path: skeleton(str(path)),
    "x_data.npy": open_clips,
    "x.npy": open_npy,
    "x_label.pkl": load_pickle,
    "scores.npz": lambda path: read_npz(path, "scores"),
    "fused.npz": read_scores,
    "manifest.json": lambda path: read_manifest(path.parent),
    "part.json": predictions.read,
    "kinetics_train_label.json": read_labels,
    "weights.pdparams": load_checkpoint,
    "m.pdmodel": check_program,
    "m.json": check_program,
    "m.onnx": check_program,
    "n.onnx": read_meta,
    "n.meta.yaml": lambda path: read_meta(path.parent / "n.pdmodel"),
    "any.bin": file_hash,
    "index.csv": lambda path: Folder(str(path.parent), WANTED),
    "table.csv": lambda path: read_array(str(path)),
    "clip.npy": lambda path: read_array(str(path)),
    "clip.npz": lambda path: read_array(str(path)),
    "S001C001P001R001A001.skeleton": _recording,
    "walk.npy": _recording,
    "walk.csv": _recording,
    "archive.zip": lambda path: find_recordings(str(path), "key"),
    "video.mp4": lambda path: next(open_media(str(path), 30.0).images),
}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _enormous(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**11)  # sparse: it needs no disk space


OBJECTS: dict[str, Callable[[Path], None]] = {
    "pipe": _pipe,
    "device": _device,
    "folder": Path.mkdir,
    "enormous": _enormous,
}


def _refusal(read: Callable[[Path], Any], path: Path) -> str:
    """What a reader says of a file. It may neither wait nor answer."""
    result: list[object] = []

    def work() -> None:
        try:
            result.append(read(path))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert result, f"no answer after {SECONDS:g} s"
    assert isinstance(result[0], UserError), repr(result[0])
    return str(result[0])


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("name", sorted({*READERS} - {"video.mp4"}))
def test_other_objects_than_files_are_refused(name: str, make: Callable, tmp_path: Path) -> None:
    make(tmp_path / name)
    message = _refusal(READERS[name], tmp_path / name)
    assert name in message
    assert len(message) < 300 + 2 * len(str(tmp_path))


@pytest.mark.parametrize("make", [_pipe, _device, _enormous])
def test_other_objects_than_videos_are_refused(make: Callable, tmp_path: Path) -> None:
    make(tmp_path / "video.mp4")  # a folder is one of images
    assert "video.mp4" in _refusal(READERS["video.mp4"], tmp_path / "video.mp4")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udcff", "\ud800"], ids=ascii)
@pytest.mark.parametrize("suffix", [Path(name).suffix for name in READERS])
def test_names_that_no_file_can_have(name: str, suffix: str, tmp_path: Path) -> None:
    for reader in (n for n in READERS if n.endswith(suffix)):
        if reader not in ("index.csv", "manifest.json", "n.meta.yaml"):  # their names are fixed
            assert _refusal(READERS[reader], tmp_path / f"{name}{suffix}")
