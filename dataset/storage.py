"""Data on disk: `<phase>_data.npy`, `<phase>_label.pkl` and `manifest.json`, opened and checked.

The data stay on disk (memory-mapped); a clip is read when it is accessed.
"""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.labels import class_number
from errors import UserError
from safe_io import PathLike, open_npy, read_json
from safe_pickle import load_pickle

PHASES = ("train", "eval")
MANIFEST = "manifest.json"
MAX_NAME = 1000  # letters of a clip's name: arrays of names give each the space of the longest


@dataclass(frozen=True)
class ClipSet:
    """Clips of one file. data: (N, 3, T, V, M) memory map, metres. labels: (N,) int64 counted
    from 0, or None without a label file. lengths: frames before the zero padding, or None.
    manifest: the generator's description, or None for data from other sources."""

    path: Path
    data: np.ndarray
    names: list[str]
    labels: np.ndarray | None
    lengths: list[int] | None
    manifest: dict[str, Any] | None

    def __len__(self) -> int:
        return len(self.data)

    def label(self, index: int) -> int | None:
        """Of a clip; None without labels."""
        return None if self.labels is None else int(self.labels[index])

    @property
    def tail_lengths(self) -> list[int] | None:
        """Frames of each clip before its zero-padded tail; None where that is not known: for data
        from elsewhere, and after the transform, which repeats frames up to the end."""
        padded = self.manifest is not None and not self.manifest["transform"]
        return self.lengths if padded else None

    def copies(self) -> list[int]:
        """Numbers of the clips that the manifest lists as copies of training clips. Raises
        UserError for a list of another form."""
        listed = (self.manifest or {}).get("copies", {})
        phase = self.path.name.removesuffix("_data.npy")
        copies = listed.get(phase, []) if isinstance(listed, dict) else None
        if not isinstance(copies, list):
            where = self.path.with_name(MANIFEST)
            raise UserError(f"{where}: copies is {reprlib.repr(listed)}; allowed: {{phase: names}}")
        names = set(map(str, copies))
        return [number for number, name in enumerate(self.names) if name in names]

    def required_labels(self) -> np.ndarray:
        """The labels. Raises UserError if there are none."""
        if self.labels is None:
            raise UserError(f"{self.path}: has no label file beside it")
        return self.labels


def open_clips(data_file: PathLike, label_file: PathLike | None = None) -> ClipSet:
    """Open a clip file with the labels and the manifest in the same folder.

    label_file: the labels, if they are elsewhere (see `find_label_file`). Raises UserError for a
    missing, damaged, or wrongly shaped file, and for labels that do not match the data.
    """
    path = Path(data_file)
    data = _open_array(path)
    label_path = Path(label_file) if label_file else find_label_file(path)
    manifest = read_manifest(path.parent)
    names: list[str] = [f"clip-{n}" for n in range(len(data))]
    labels = lengths = None
    if label_path is not None:
        names, labels, lengths = _read_labels(label_path, len(data), path)
        if manifest is None:
            names = _without_folders(names)
        else:  # of this project: names are as the user wrote them, and folders tell clips apart
            _check_labels(label_path, names, labels, manifest)
    return ClipSet(path, data, names, labels, lengths, manifest)


def open_split(folder: PathLike, phase: str, command: str) -> ClipSet:
    """The train or eval split of a generated data set. command: what generates the data, for the
    error if they are missing."""
    path = Path(folder) / f"{phase}_data.npy"
    label_path = path.with_name(f"{phase}_label.pkl")
    for file in (path, label_path):
        if not os.path.isfile(file):
            raise UserError(f"{file.name} not found in {folder}; run: {command}", command=command)
    return open_clips(path, label_path)


def find_label_file(data_file: Path) -> Path | None:
    """Labels of `x_data.npy` or `x.npy`: `x_label.pkl`, else `x.pkl`; None without either."""
    stem = data_file.stem[: -len("_data")] if data_file.stem.endswith("_data") else data_file.stem
    for name in (f"{stem}_label.pkl", f"{stem}.pkl"):
        if os.path.lexists(data_file.with_name(name)):
            return data_file.with_name(name)
    return None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The generator's description of the data in a folder; None if there is none."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("transform"), bool):
        raise UserError(f"{path}: not a manifest of this project (no 'transform' true or false)")
    return manifest


def content_hash(names: Sequence[str], labels: Sequence[int]) -> str:
    """SHA-256 of lines 'name label': identifies the clips of a set and their order."""
    lines = "".join(f"{name} {label}\n" for name, label in zip(names, labels))
    return hashlib.sha256(lines.encode()).hexdigest()


def _check_labels(
    path: Path, names: Sequence[str], labels: np.ndarray | None, manifest: Mapping[str, Any]
) -> None:
    """Raises UserError where a split's labels are not those that the manifest was written with."""
    hashes = manifest.get("sha256")
    phase = path.name.removesuffix("_label.pkl")
    if labels is None or not isinstance(hashes, dict) or phase not in hashes:
        return
    if content_hash(names, labels.tolist()) != hashes[phase]:
        raise UserError(
            f"{path}: its names and labels are not those of {MANIFEST} beside it; generate the "
            f"data again, or remove {MANIFEST} if you changed them"
        )


def _open_array(path: Path) -> np.ndarray:
    data = open_npy(path)
    if data.ndim != 5 or data.shape[1] != 3 or data.dtype.kind != "f" or 0 in data.shape:
        raise UserError(
            f"{path}: {data.dtype} array of shape {data.shape}; allowed: float (N, 3, T, V, M) "
            "with at least one clip"
        )
    return data


def _read_labels(
    path: Path, count: int, data_path: Path
) -> tuple[list[str], np.ndarray | None, list[int] | None]:
    """(names, labels[, lengths]) of a label pickle, of this project or of the public code; labels
    may be None."""
    content = load_pickle(path)
    if not isinstance(content, (tuple, list)) or len(content) not in (2, 3):
        raise UserError(f"{path}: allowed: a pickle of (names, labels) or (names, labels, lengths)")
    for what, column in zip(("names", "labels", "lengths"), content):
        if what == "labels" and column is None:  # names alone
            continue
        ranks = (1, 2) if what == "labels" else (1,)
        is_list = isinstance(column, (list, tuple)) or getattr(column, "ndim", 0) in ranks
        if not is_list or len(column) != count:
            size = f"{len(column)}" if is_list else "not a list of"
            raise UserError(f"{path}: {size} {what} for {count} clips in {data_path.name}")
    names = [str(name) for name in content[0]]
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        raise UserError(f"{path}: a name of {longest} letters; allowed: {MAX_NAME}")
    labels = None if content[1] is None else _class_numbers(path, content[1])
    if labels is not None and labels.min() < 0:
        raise UserError(f"{path}: label {labels.min()}; allowed: 0 or more; without labels: None")
    lengths = _integers(path, "lengths", content[2]).tolist() if len(content) == 3 else None
    return names, labels, lengths


def _without_folders(names: list[str]) -> list[str]:
    """File names of the paths in label files of the public code, which differ between machines. If
    clips in different folders have the same file name, only the folders that all share are
    dropped."""
    paths = [name.replace("\\", "/").split("/") for name in names]
    if len({path[-1] for path in paths}) == len({tuple(path) for path in paths}):
        return [path[-1] for path in paths]
    shared = len(os.path.commonprefix([path[:-1] for path in paths]))  # of lists: whole folders
    return ["/".join(path[shared:]) for path in paths]


def _class_numbers(path: Path, labels: Any) -> np.ndarray:
    """(N,) int64 of integers, of arrays (N, 1) and of one-hot (N, num_class)."""
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if all(type(value) is int for value in values):  # the usual case, quickly
        return _integers(path, "labels", values)
    numbers = [class_number(value) for value in values]
    usual = np.size(values[0])
    wrong = [n for n, v in enumerate(values) if numbers[n] is None or np.size(v) != usual]
    if wrong:
        shown = " ".join(repr(values[wrong[0]]).split())[:60]
        raise UserError(
            f"{path}: label of clip {wrong[0]} is {shown}; allowed: integers, or one-hot vectors"
        )
    return _integers(path, "labels", numbers)


def _integers(path: Path, what: str, values: Any) -> np.ndarray:
    try:
        array = np.array(values)
    except ValueError as error:
        raise UserError(f"{path}: {what} are not a list of integers") from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(f"{path}: {what} are {array.dtype}; allowed: integers")
    return array.astype(np.int64)
