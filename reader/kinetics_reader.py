"""Kinetics-skeleton: OpenPose's 18 joints of YouTube clips, a JSON file a clip.

`kinetics_train/<id>.json` and `kinetics_val/<id>.json`, beside them `kinetics_train_label.json`
and `kinetics_val_label.json`: {id: {has_skeleton, label, label_index}}. A clip's file is {data:
[{frame_index, skeleton: [{pose: [x0, y0, ...], score: [s0, ...]}]}], label, label_index}; x and y
are shares of the picture's width and height. What becomes of them follows ST-GCN (Yan et al.,
AAAI 2018; public code `feeder/feeder_kinetics.py`, `tools/kinetics_gendata.py`), but for the
number of a frame: there, frame 1 goes to the second slot and frame 300 nowhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataset.augment import openpose_match
from dataset.protocols import MAX_FRAME, NUM_PERSON, DataSpec
from dataset.skeletons import skeleton
from reader.clip import BadRecording, Clip
from reader.recordings import read_file
from reader.source import Item, Source
from safe_io import UserError

NUM_JOINT = skeleton("openpose-18").num_joint
MAX_READ = 5  # persons of a frame that are read; the NUM_PERSON of highest score are kept
MAX_BYTES = 64 * 2**20  # of a file; with five persons in all 300 frames it has about 2 MB
# Shares of the picture. OpenPose finds joints inside it; anything beyond this is another unit.
LEAST, MOST = -0.5, 1.5
MAX_NUMBER = 1e300  # anything beyond is no number that arrays hold

HALVES = {"train": "kinetics_train", "eval": "kinetics_val"}
KEY = "dataset_args.kinetics.source_path"


def parse(data: bytes, label: tuple[str, int], where: str) -> Clip:
    """The clip in the bytes of a JSON file; channels are x - 0.5, y - 0.5 and score.

    label: (name, number) that the label file gives the clip. Frame k goes to slot k - 1. A joint
    of score 0 is zero in every channel. Each frame's persons are sorted by the sum of their
    scores, highest first, equal ones as they come, and the first NUM_PERSON kept; so person m of
    one frame may be another one in the next (`openpose_match`). Raises BadRecording, naming
    `where`, for text that is damaged, other numbers of coordinates, and another label.
    """
    content = _content(data, where)
    own = (content.get("label"), content.get("label_index"))
    if own != label:
        raise BadRecording(where, f"its label is {own}; the label file says {label}")
    numbers, people, most_persons = _frames(content.get("data"), where)
    length = min(max(numbers), MAX_FRAME)
    if length < 1:
        raise BadRecording(where, "no frame_index is 1 or more")
    bodies = np.zeros((length, MAX_READ, 3, NUM_JOINT))  # T, M, C, V
    kept = [person for person in people if 1 <= person.frame <= MAX_FRAME]
    if kept:
        poses = _poses(kept, where)
        bodies[[person.frame - 1 for person in kept], [person.place for person in kept]] = poses
    order = np.argsort(-bodies[:, :, 2].sum(axis=2), axis=1, kind="stable")[:, :NUM_PERSON]
    best = np.take_along_axis(bodies, order[:, :, None, None], axis=1)
    return Clip(
        positions=np.ascontiguousarray(best.transpose(2, 0, 3, 1), np.float32),  # C, T, V, M
        length=length,
        is_cut=max(numbers) > MAX_FRAME,
        has_extra_body=most_persons > MAX_READ,
        empty_frames=length - int(best.any(axis=(1, 2, 3)).sum()),
        misnumbered_frames=sum(number < 1 for number in numbers),
    )


def _content(data: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRecording(where, f"not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadRecording(where, "holds no JSON object with 'data', 'label', 'label_index'")
    return content


@dataclass(frozen=True)
class _Person:
    """One person of one frame, as the file has it: the frame's number, the person's place in its
    list, x and y in turns, and scores."""

    frame: int
    place: int
    pose: list[Any]
    score: list[Any]

    @property
    def named(self) -> str:
        return f"frame_index {self.frame}: skeleton[{self.place}]"


def _frames(frames: Any, where: str) -> tuple[list[int], list[_Person], int]:
    """The frames' numbers, their first MAX_READ persons, and the most persons of a frame."""
    if not isinstance(frames, list) or not frames:
        raise BadRecording(where, "'data' is no list of frames, or empty")
    numbers: list[int] = []
    people: list[_Person] = []
    most = 0
    for place, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("skeleton"), list):
            raise BadRecording(where, f"data[{place}]: no object with frame_index and skeleton")
        number = frame.get("frame_index")
        if type(number) is not int:
            raise BadRecording(where, f"data[{place}]: frame_index {number!r} is no whole number")
        numbers.append(number)
        most = max(most, len(frame["skeleton"]))
        for m, person in enumerate(frame["skeleton"][:MAX_READ]):
            people.append(_person(number, m, person, where))
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise BadRecording(where, f"frame_index {twice} comes twice")
    return numbers, people, most


def _person(frame: int, place: int, content: Any, where: str) -> _Person:
    content = content if isinstance(content, dict) else {}
    person = _Person(frame, place, content.get("pose"), content.get("score"))
    for what, count in (("pose", 2 * NUM_JOINT), ("score", NUM_JOINT)):
        values = getattr(person, what)
        size = len(values) if isinstance(values, list) else "no list of"
        if size != count:
            raise BadRecording(where, f"{person.named}: {what} has {size} numbers; must be {count}")
    return person


def _poses(people: Sequence[_Person], where: str) -> np.ndarray:
    """x, y and score of each person: (P, C=3, V) float64, x and y centred, or zero where the
    score is."""
    values = _numbers(people, where)  # P, 2 V + V
    pose, score = values[:, : 2 * NUM_JOINT], values[:, 2 * NUM_JOINT :]
    odd = (pose.min(axis=1) < LEAST) | (pose.max(axis=1) > MOST) | (score.min(axis=1) < 0)
    if odd.any():
        p = int(odd.argmax())
        raise BadRecording(
            where,
            f"{people[p].named}: coordinates from {pose[p].min():g} to {pose[p].max():g}, scores "
            f"from {score[p].min():g}; allowed: shares of the picture, 0 to 1, and scores from 0",
        )
    centred = pose.reshape(len(people), NUM_JOINT, 2).transpose(0, 2, 1) - 0.5
    there = score[:, None] > 0
    return np.concatenate([np.where(there, centred, 0), score[:, None]], axis=1)


def _numbers(people: Sequence[_Person], where: str) -> np.ndarray:
    try:
        values = np.array([person.pose + person.score for person in people])
    except ValueError:  # lists among the numbers
        values = np.empty(0, object)
    if values.dtype.kind in "iuf" and values.ndim == 2 and np.isfinite(values).all():
        return values.astype(np.float64)
    for person in people:
        for value in person.pose + person.score:
            if type(value) not in (int, float) or not abs(value) < MAX_NUMBER:
                raise BadRecording(where, f"{person.named}: {value!r} is no finite number")
    raise BadRecording(where, "holds something that is no finite number")


class KineticsReader:
    """Reads JSON files; an item's place is (file, label's name). match: turn each frame's order
    of persons into tracks (`openpose_match`)."""

    def __init__(self, match: bool) -> None:
        self._match = match

    def read(self, item: Item) -> Clip:
        """Raises BadRecording, naming the file and the frame."""
        file, label = item.place
        clip = parse(read_file(file, MAX_BYTES), (label, item.label), file)
        if not self._match:
            return clip
        return replace(clip, positions=openpose_match(clip.positions))

    def close(self) -> None:
        """Nothing stays open."""


def kinetics_source(path: str, spec: DataSpec, match: bool) -> Source:
    """What of Kinetics-skeleton in the folder `path` has a skeleton and a label, sorted by id.

    One half may be missing. Raises UserError for a folder with neither, and for damaged label
    files.
    """
    found = {phase: name for phase, name in HALVES.items() if _label_file(path, name).is_file()}
    if not found:
        wanted = " or ".join(f"{name}_label.json" for name in HALVES.values())
        raise UserError(
            f"{KEY} is {path!r}, where there is no {wanted}; give the folder of kinetics-skeleton: "
            f"--set {KEY}=PATH"
        )
    warnings = [
        f"{_label_file(path, name)} not found: there is no {phase} half"
        for phase, name in HALVES.items()
        if phase not in found
    ]
    chosen = _Chosen(spec.num_class)
    for phase, name in found.items():
        chosen.add_half(path, phase, name)
        unlisted = chosen.unlisted(path, phase, name)
        if unlisted:
            warnings.append(
                f"{Path(path, name)}: {len(unlisted)} files are not in the label file and were "
                f"left out: {', '.join(unlisted[:5])}"
            )
    if not chosen.items and not chosen.bad:
        raise UserError(f"{KEY} is {path!r}, whose label files list no clip with a label")
    about = {
        **{"kind": "kinetics", "source": path, "transform": False, "unit": "normalised"},
        **{"splits": found, "openpose_match": match},
    }
    left_out = chosen.left_out
    reasons = [entry["reason"] for entry in left_out]
    counters = {
        "without_skeleton": reasons.count(_NO_SKELETON),
        "blank_labels": reasons.count(_NO_LABEL),
    }
    reader = KineticsReader(match)
    return Source(about, chosen.items, reader, chosen.bad, counters, left_out, warnings)


_NO_SKELETON, _NO_LABEL = "has_skeleton is false", "its label is blank"


class _Chosen:
    """The clips of the label files, sorted out."""

    def __init__(self, num_class: int) -> None:
        self._num_class = num_class
        self.items: list[Item] = []
        self.bad: list[tuple[str, BadRecording]] = []
        self.left_out: list[dict[str, str]] = []
        self._listed: set[str] = set()

    def add_half(self, path: str, phase: str, name: str) -> None:
        label_file = _label_file(path, name)
        for key, entry in sorted(_labels(label_file).items()):
            file = f"{key}.json"
            self._listed.add(f"{phase}/{file}")
            reason = self._wrong(key, entry)
            if reason:
                self.bad.append((file, BadRecording(str(label_file), f"{key!r}: {reason}")))
            elif not entry["has_skeleton"]:
                self.left_out.append({"file": file, "reason": _NO_SKELETON})
            elif entry["label"] == "" or entry["label_index"] == "":
                self.left_out.append({"file": file, "reason": _NO_LABEL})
            else:
                place = (os.path.join(path, name, file), entry["label"])
                self.items.append(Item(file, phase, entry["label_index"], place))

    def _wrong(self, key: str, entry: Any) -> str:
        """Why an entry of a label file cannot be used; '' where it can, or says that it is
        empty."""
        if key in ("", ".", "..") or "/" in key or "\\" in key or "\0" in key:
            return "no name of a file"
        if not isinstance(entry, dict) or type(entry.get("has_skeleton")) is not bool:
            return "has_skeleton must be true or false"
        label, number = entry.get("label"), entry.get("label_index")
        if not entry["has_skeleton"] or (isinstance(label, str) and "" in (label, number)):
            return ""
        if not isinstance(label, str) or type(number) is not int:
            return f"label is {label!r} and label_index {number!r}; must be text and a number"
        if not 0 <= number < self._num_class:
            return f"label_index is {number}; must be 0 to {self._num_class - 1}"
        return ""

    def unlisted(self, path: str, phase: str, name: str) -> list[str]:
        """JSON files of a half that its label file does not know. Raises UserError where the
        half's folder cannot be listed."""
        try:
            files = sorted(os.listdir(os.path.join(path, name)))
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be listed: {error.strerror}") from error
        return [
            file
            for file in files
            if file.endswith(".json")
            and not file.startswith(".")
            and f"{phase}/{file}" not in self._listed
        ]


def _label_file(path: str, name: str) -> Path:
    return Path(path) / f"{name}_label.json"


def _labels(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{file}: must hold an object: {{id: {{has_skeleton, label, label_index}}}}"
        )
    return content
