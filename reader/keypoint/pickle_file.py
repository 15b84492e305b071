"""The pickle format of pyskl and mmaction2 (1.0 and later): {'split': {name: [frame_dir]},
'annotations': [{frame_dir, label, total_frames, keypoint (M, T, V, C), keypoint_score (M, T, V),
img_shape (height, width)}]}. Scores and image sizes are optional."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from errors import UserError
from reader.clip import BadRecording
from reader.keypoint.labels import numbers_of
from reader.keypoint.types import Entry, Raw, Wanted
from safe_pickle import load_pickle


class Pickle:
    """The clips of such a file; all of them are in memory. Attributes as those of Folder."""

    in_memory = True

    def __init__(self, path: str, wanted: Wanted) -> None:
        """Raises UserError if the file cannot be read or has another structure."""
        content = load_pickle(path)
        if isinstance(content, list):
            raise UserError(
                f"{path}: a list of annotations, the format of mmaction2 before 1.0, has no "
                "splits; allowed: {'split': {name: [frame_dir]}, 'annotations': that list}"
            )
        if not isinstance(content, dict) or not {"split", "annotations"} <= set(content):
            raise UserError(f"{path}: must contain a dict with 'split' and 'annotations'")
        self._path = path
        self._annotations = content["annotations"]
        if not isinstance(self._annotations, (list, tuple)) or not self._annotations:
            raise UserError(f"{path}: 'annotations' is not a list, or empty")
        splits_of = _splits_of(content["split"], path)
        names = [self._name(n) for n in range(len(self._annotations))]
        labels = [annotation.get("label") for annotation in self._annotations]
        where = [f"{path}: {name}" for name in names]
        numbers, self.remarks = numbers_of(labels, where, wanted)
        splits_of, renamed = _with_own_names(splits_of, set(names))
        self.entries = [
            Entry(name, number, splits_of.get(name, ()), 0.0, location)
            for location, (name, number) in enumerate(zip(names, numbers))
        ]
        if renamed:
            example = " = ".join(renamed[0])
            self.remarks.append(f"split lists: {len(renamed)} names by file ending, e.g. {example}")
        lost = [name for name in splits_of if name not in set(names)]
        note = f"the splits list {len(lost)} clips without annotation: {', '.join(lost[:5])}"
        self.notes = [note] if lost else []

    def _name(self, number: int) -> str:
        annotation = self._annotations[number]
        if not isinstance(annotation, dict):
            raise UserError(f"{self._path}: annotations[{number}] is not a dict")
        name = annotation.get("frame_dir", annotation.get("filename"))
        if not isinstance(name, str):
            raise UserError(f"{self._path}: annotations[{number}] has no frame_dir (a string)")
        return name

    def load(self, location: int) -> Raw:
        """location: index of the annotation. Raises BadRecording."""
        annotation = self._annotations[location]
        where = f"{self._path}: {self.entries[location].name}"
        keypoint, score = annotation.get("keypoint"), annotation.get("keypoint_score")
        for what, array in (("keypoint", keypoint), ("keypoint_score", score)):
            may_lack = what == "keypoint_score" and array is None
            if not isinstance(array, np.ndarray) and not may_lack:
                raise BadRecording(where, f"{what} is not an array")
        size = annotation.get("img_shape")
        image_size = None if size is None else _image_size(size, where)
        return Raw([keypoint], score, image_size, _integer(annotation.get("total_frames")))


def _integer(value: Any) -> int | None:
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return int(value) if is_integer else None


def _image_size(size: Any, where: str) -> tuple[float, float]:
    """(height, width[, channels]) -> (width, height)."""
    sides = size.tolist() if isinstance(size, np.ndarray) else size
    if isinstance(sides, (list, tuple)) and len(sides) in (2, 3):
        numbers = [side for side in sides[:2] if isinstance(side, (int, float, np.number))]
        if len(numbers) == 2 and all(1 <= side < 1e6 for side in numbers):
            return float(numbers[1]), float(numbers[0])
    raise BadRecording(where, f"img_shape is {str(size)[:60]}; must be (height, width) in pixels")


def _splits_of(content: Any, path: str) -> dict[str, tuple[str, ...]]:
    """{frame_dir: names of the splits that list it}."""
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: 'split' must be a dict {{name: [frame_dir, ...]}}")
    splits: dict[str, tuple[str, ...]] = {}
    for split, listed in content.items():
        names = listed.tolist() if isinstance(listed, np.ndarray) else listed
        if not isinstance(split, str) or not isinstance(names, (list, tuple)):
            raise UserError(f"{path}: split {split!r} must be a list of frame_dir")
        for name in dict.fromkeys(map(str, names)):
            splits[name] = (*splits.get(name, ()), split)
    return splits


def _with_own_names(
    splits: Mapping[str, tuple[str, ...]], names: Set[str]
) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str]]]:
    """The splits under the clips' own names where either has a file ending that the other lacks;
    and the (listed, own) names of these. Where several clips could be meant, nothing is changed."""
    unlisted = names - set(splits)
    named: dict[str, list[str]] = {}
    for name in sorted(unlisted):
        for key in {name, _stem(name)}:
            named.setdefault(key, []).append(name)
    own, renamed = {}, []
    for listed, where in splits.items():
        found = named.get(listed) or named.get(_stem(listed), [])
        if listed not in names and len(found) == 1 and found[0] not in own:
            own[found[0]] = where
            renamed.append((listed, found[0]))
        else:
            own[listed] = where
    return own, renamed


def _stem(name: str) -> str:
    """Without a file ending: letters and digits after the last dot, and not digits only, which
    end names like 'take_1.5'."""
    return re.sub(r"(?<=[^/\\])\.(?!\d+$)\w{1,8}$", "", name)
