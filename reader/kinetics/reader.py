"""One JSON file of Kinetics-skeleton, OpenPose's 18 joints of a YouTube clip -> one clip.

The file: {data: [{frame_index, skeleton: [{pose: [x0, y0, ...], score: [s0, ...]}]}], label,
label_index}; x and y are shares of the picture's width and height. What becomes of them follows
ST-GCN (Yan et al., AAAI 2018; public code `feeder/feeder_kinetics.py`), but for the number of a
frame: there, frame 1 goes to the second slot and frame 300 nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.data import MAX_FRAME
from dataset.protocols import NUM_PERSON
from dataset.skeletons import skeleton
from reader.clip import BadRecording, Clip

NUM_JOINT = skeleton("openpose-18").num_joint
MAX_READ = 5  # persons of a frame that are read; the NUM_PERSON of highest score are kept
# Shares of the picture. OpenPose finds joints inside it; anything beyond this is another unit.
LEAST, MOST = -0.5, 1.5
MAX_SCORE = 10.0  # confidences pass 1 a little, never so far
MAX_NUMBER = 1e300  # anything beyond is no number that arrays hold


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
    odd = (pose.min(axis=1) < LEAST) | (pose.max(axis=1) > MOST)
    odd |= (score.min(axis=1) < 0) | (score.max(axis=1) > MAX_SCORE)
    if odd.any():
        p = int(odd.argmax())
        raise BadRecording(
            where,
            f"{people[p].named}: coordinates from {pose[p].min():g} to {pose[p].max():g}, scores "
            f"from {score[p].min():g} to {score[p].max():g}; allowed: shares of the picture, and "
            "scores, 0 to 1",
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
