"""One JSON file of Kinetics-skeleton, OpenPose's 18 joints of a YouTube clip -> one clip.

The file: {data: [{frame_index, skeleton: [{pose: [x0, y0, ...], score: [s0, ...]}]}], label,
label_index}; x and y are relative to the width and height of the image. The conversion follows
ST-GCN (Yan et al., AAAI 2018; public code `feeder/feeder_kinetics.py`), except that the public code
stores frame 1 at index 1 and drops frame 300.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as _show  # abbreviates long and deep values
from typing import Any

import numpy as np

from dataset.protocols import MAX_FRAME, NUM_PERSON
from dataset.skeletons import skeleton
from reader.clip import Clip, Unusable, reading

NUM_JOINT = skeleton("openpose-18").num_joint
MAX_READ = 5  # persons read per frame; the NUM_PERSON with the highest scores are kept
# Relative image coordinates. OpenPose joints are inside the image; values beyond are other units.
LOWEST, HIGHEST = -0.5, 1.5
MAX_SCORE = 10.0  # confidences slightly exceed 1, but never this much
MAX_NUMBER = 1e300  # larger integers do not fit into float64 arrays
# Of a frame; larger ones may be chosen so that sets of them take time that grows with the square.
MAX_INDEX = 10**9


def parse(
    data: bytes, label: tuple[str, int] | None, where: str, max_frame: int = MAX_FRAME
) -> Clip:
    """The clip in the bytes of a JSON file; channels are x - 0.5, y - 0.5 and score.

    label: (name, number) of the clip in the label file; None: any. max_frame: that are kept. Frame
    k is stored at index k - 1, or k in a clip whose lowest frame_index is 0. A joint with score 0
    is zero in every channel. The persons of each frame are sorted by the sum of their scores,
    highest first, ties in stored order, and the first NUM_PERSON kept; so slot m may contain
    different persons in consecutive frames (`openpose_match`). Raises BadRecording, naming `where`,
    for damaged text, a wrong number of coordinates, and a different label.
    """
    with reading(where):
        content = _content(data)
        own = (content.get("label"), content.get("label_index"))
        if label is not None and own != label:
            raise Unusable(f"its label is {own}; the label file says {label}")
        numbers, people, most_persons = _frames(content.get("data"))
        first = 0 if min(numbers) == 0 else 1
        num_frame = max(numbers) - first + 1
        length = min(num_frame, max_frame)
        if length < 1:
            raise Unusable("no frame_index is 1 or more")
        bodies = np.zeros((length, MAX_READ, 3, NUM_JOINT))  # T, M, C, V
        kept = [person for person in people if 0 <= person.frame - first < length]
        if kept:
            frames, slots = [p.frame - first for p in kept], [p.index for p in kept]
            bodies[frames, slots] = _poses(kept)
    order = np.argsort(-bodies[:, :, 2].sum(axis=2), axis=1, kind="stable")[:, :NUM_PERSON]
    best = np.take_along_axis(bodies, order[:, :, None, None], axis=1)
    return Clip(
        positions=np.ascontiguousarray(best.transpose(2, 0, 3, 1), np.float32),  # C, T, V, M
        length=length,
        is_truncated=num_frame > max_frame,
        has_extra_body=most_persons > MAX_READ,
        empty_frames=length - int(best.any(axis=(1, 2, 3)).sum()),
        misnumbered_frames=sum(number < first for number in numbers),
        counts_from_zero=first == 0,
    )


def _content(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise Unusable("not a JSON object with 'data', 'label', 'label_index'")
    return content


@dataclass(frozen=True)
class _Person:
    """One person of one frame, as stored: the number of the frame, the index in its list, x and y
    alternating, and scores."""

    frame: int
    index: int
    pose: list[Any]
    score: list[Any]

    @property
    def where(self) -> str:
        return f"frame_index {self.frame}: skeleton[{self.index}]"


def _frames(frames: Any) -> tuple[list[int], list[_Person], int]:
    """Numbers of the frames, their first MAX_READ persons, and the most persons in a frame."""
    if not isinstance(frames, list) or not frames:
        raise Unusable("'data' is not a list of frames, or empty")
    numbers: list[int] = []
    people: list[_Person] = []
    most = 0
    for n, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("skeleton"), list):
            raise Unusable(f"data[{n}]: not an object with frame_index and skeleton")
        number = frame.get("frame_index")
        if type(number) is not int or abs(number) > MAX_INDEX:
            allowed = f"an integer of at most {MAX_INDEX:,}"
            raise Unusable(f"data[{n}]: frame_index {_show(number)} is not {allowed}")
        numbers.append(number)
        most = max(most, len(frame["skeleton"]))
        for m, person in enumerate(frame["skeleton"][:MAX_READ]):
            people.append(_person(number, m, person))
    twice, count = Counter(numbers).most_common(1)[0]
    if count > 1:
        raise Unusable(f"duplicate frame_index {twice}")
    return numbers, people, most


def _person(frame: int, index: int, content: Any) -> _Person:
    content = content if isinstance(content, dict) else {}
    person = _Person(frame, index, content.get("pose"), content.get("score"))
    for what, count in (("pose", 2 * NUM_JOINT), ("score", NUM_JOINT)):
        values = getattr(person, what)
        found = len(values) if isinstance(values, list) else "no list of"
        if found != count:
            raise Unusable(f"{person.where}: {what}: {found} numbers; must be {count}")
    return person


def _poses(people: Sequence[_Person]) -> np.ndarray:
    """x, y and score of each person: (P, C=3, V) float64, x and y centred, or zero if the score
    is."""
    values = _numbers(people)  # P, 2 V + V
    pose, score = values[:, : 2 * NUM_JOINT], values[:, 2 * NUM_JOINT :]
    invalid = (pose.min(axis=1) < LOWEST) | (pose.max(axis=1) > HIGHEST)
    invalid |= (score.min(axis=1) < 0) | (score.max(axis=1) > MAX_SCORE)
    if invalid.any():
        p = int(invalid.argmax())
        raise Unusable(
            f"{people[p].where}: coordinates from {pose[p].min():g} to {pose[p].max():g}, scores "
            f"from {score[p].min():g} to {score[p].max():g}; allowed: coordinates relative to the "
            "image size, and scores, 0 to 1",
        )
    centred = pose.reshape(len(people), NUM_JOINT, 2).transpose(0, 2, 1) - 0.5
    detected = score[:, None] > 0
    return np.concatenate([np.where(detected, centred, 0), score[:, None]], axis=1)


def _numbers(people: Sequence[_Person]) -> np.ndarray:
    rows = [person.pose + person.score for person in people]
    # Types first: NumPy reads true as 1, and gives all values the space of the longest text.
    if all(set(map(type, row)) <= {int, float} for row in rows):
        values = np.array(rows)
        if values.dtype.kind in "iuf" and np.isfinite(values).all():
            return values.astype(np.float64)
    for person, row in zip(people, rows):
        for value in row:
            if type(value) not in (int, float) or not abs(value) < MAX_NUMBER:
                raise Unusable(f"{person.where}: {_show(value)} is not a finite number")
    return np.array(rows, np.float64)
