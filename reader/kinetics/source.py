"""The clips of Kinetics-skeleton, selected by its label files.

`kinetics_train/<id>.json` and `kinetics_val/<id>.json`, next to them the label files
(`dataset/kinetics_labels.py`).
"""

from __future__ import annotations

import functools
import os
import shlex
from dataclasses import replace
from typing import Any

from dataset.kinetics_labels import NAMES_KEY, SPLITS, label_file, read_labels
from dataset.protocols import DataSpec
from errors import UserError
from reader.clip import BadRecording, Clip
from reader.kinetics.matching import openpose_match
from reader.kinetics.reader import parse
from reader.shared import read_file
from reader.source import Item, Source

KEY = "dataset_args.kinetics.source_path"
MAX_BYTES = 64 * 2**20  # of a file; one with five persons in all 300 frames has about 2 MB
_NO_SKELETON, _NO_LABEL = "has_skeleton is false", "its label is blank"


def _read(match: bool, item: Item) -> Clip:
    """The clip of an item, whose location is (file, name of the label). match: join the persons of
    single frames into tracks (`openpose_match`). Raises BadRecording, naming file and frame."""
    file, label = item.location
    clip = parse(read_file(file, MAX_BYTES), (label, item.label), file)
    return replace(clip, positions=openpose_match(clip.positions)) if match else clip


def kinetics_source(path: str, spec: DataSpec, match: bool) -> Source:
    """The clips of Kinetics-skeleton in `path` that have a skeleton and a label, sorted by id.

    One split may be missing. Raises UserError for a folder with neither, and for damaged label
    files.
    """
    found = {
        phase: name for phase, name in SPLITS.items() if os.path.isfile(label_file(path, name))
    }
    if not found:
        names = " or ".join(f"{name}_label.json" for name in SPLITS.values())
        raise UserError(
            f"{KEY} is {path!r}, which has no {names}; give the folder of kinetics-skeleton: "
            f"--set {KEY}=PATH"
        )
    clips = _Selection(path, spec)
    for phase, name in SPLITS.items():
        if phase in found:
            clips.add_split(phase, name)
        else:
            clips.warnings.append(f"{label_file(path, name)} not found: no {phase} data")
    if not clips.items and not clips.bad:
        raise UserError(f"{KEY} is {path!r}, whose label files list no clip with a label")
    about = {"kind": "kinetics", "splits": found}
    left_out, read = clips.left_out, functools.partial(_read, match)
    reasons = [entry["reason"] for entry in left_out]
    named = {"without_skeleton": _NO_SKELETON, "blank_labels": _NO_LABEL}
    counters = {name: reasons.count(reason) for name, reason in named.items()}
    return Source(about, clips.items, read, clips.bad, counters, left_out, clips.warnings)


class _Selection:
    """The clips of the label files: usable, bad, or left out."""

    def __init__(self, path: str, spec: DataSpec) -> None:
        self._path = path
        self._spec = spec
        self.items: list[Item] = []
        self.bad: list[tuple[str, BadRecording]] = []
        self.left_out: list[dict[str, str]] = []
        self.warnings: list[str] = []

    def add_split(self, phase: str, name: str) -> None:
        listed = label_file(self._path, name)
        labels = read_labels(listed)
        for key, entry in sorted(labels.items()):
            file = f"{key}.json"
            reason = self._invalid(key, entry)
            if reason:
                self.bad.append((file, BadRecording(str(listed), f"{key!r}: {reason}")))
            elif not entry["has_skeleton"]:
                self.left_out.append({"file": file, "reason": _NO_SKELETON})
            elif entry["label"] == "" or entry["label_index"] == "":
                self.left_out.append({"file": file, "reason": _NO_LABEL})
            else:
                location = (os.path.join(self._path, name, file), entry["label"])
                self.items.append(Item(file, phase, entry["label_index"], location))
        self._note_unlisted(name, {f"{key}.json" for key in labels})

    def _invalid(self, key: str, entry: Any) -> str:
        """Why an entry of a label file is invalid; '' if it is valid, with or without a skeleton
        and a label."""
        if key in ("", ".", "..") or "/" in key or "\\" in key or "\0" in key:
            return "not a file name"
        if not isinstance(entry, dict) or type(entry.get("has_skeleton")) is not bool:
            return "has_skeleton must be true or false"
        label, number = entry.get("label"), entry.get("label_index")
        if not entry["has_skeleton"] or (isinstance(label, str) and "" in (label, number)):
            return ""
        if not isinstance(label, str) or type(number) is not int:
            return f"label is {label!r} and label_index {number!r}; must be text and an integer"
        names, dataset = self._spec.class_names, self._spec.name
        if not 0 <= number < len(names):
            return f"label_index is {number}; must be 0 to {len(names) - 1}"
        if label != names[number] and _letters(label) != _letters(names[number]):
            return (
                f"its label is {label!r}, but label_index {number} of {dataset} is "
                f"{names[number]!r}; if the classes are your own, add: -d my_set --set "
                f"{NAMES_KEY}={shlex.quote(self._path)}"
            )
        return ""

    def _note_unlisted(self, name: str, listed: set[str]) -> None:
        folder = os.path.join(self._path, name)
        try:
            files = sorted(set(os.listdir(folder)) - listed)
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed: {error.strerror}") from error
        extra = [file for file in files if file.endswith(".json") and not file.startswith(".")]
        if extra:
            self.warnings.append(
                f"{folder}: {len(extra)} files are not in the label file and not used: "
                f"{', '.join(extra[:5])}"
            )


def _letters(text: str) -> str:
    """What makes two spellings of a class name equal."""
    return "".join(char for char in text.casefold() if char.isalnum())
