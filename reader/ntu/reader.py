"""NTU RGB+D `.skeleton` text -> one clip of the two persons with the most motion.

The text: the number of frames; then for each frame the number of bodies; for each body a line of
ten fields (identity, tracking state), the number of joints, and a line for each joint of twelve
fields that starts with x, y, z in metres. The selection of persons follows the public EfficientGCN
code (`reader/ntu_reader.py`), and the result is bit-identical to its.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset.protocols import MAX_FRAME, NUM_PERSON
from dataset.skeletons import skeleton
from reader.clip import Clip, Unusable, reading
from reader.ntu.coordinates import first_three
from reader.shared import energy
from reader.tracking import reordered

NUM_JOINT = skeleton("ntu-25").num_joint
NUM_FIELD = 12  # in the line of a joint
# A frame may list more bodies (false detections in furniture and mirrors); the first four count.
MAX_BODY = 4
MAX_LINE = 2_000_000  # of a file; four persons in 15,000 frames have fewer
# Metres. Beyond any sensor's range, and the squares of much larger numbers would overflow float32.
MAX_COORDINATE = 1e6


class _Text:
    """The lines of a file without copying: line r is data[begins[r]:begins[r + 1]], r from 0."""

    def __init__(self, data: bytes) -> None:
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        ends = newlines + 1 if data.endswith(b"\n") else np.append(newlines + 1, len(data))
        self.data = data
        self.offsets = np.append(0, ends)
        self.begins: list[int] = self.offsets.tolist()

    def __len__(self) -> int:
        return len(self.begins) - 1

    def line(self, row: int) -> bytes:
        return self.data[self.begins[row] : self.begins[row + 1]].strip()


@dataclass
class _Layout:
    """Positions in the text: the joints of the b-th kept body start at line `rows[b]`; it is number
    `slots[b]` in the list of frame `frames[b]`. All from 0."""

    rows: list[int]
    frames: list[int]
    slots: list[int]
    num_frame: int
    most_bodies: int


def parse(data: bytes, where: str, repair_order: bool = False, max_frame: int = MAX_FRAME) -> Clip:
    """The clip in the bytes of a `.skeleton` file with LF or CRLF line breaks, with or without a
    UTF-8 byte-order mark.

    Bodies are identified by their position in each frame's list; repair_order: by tracking, where
    that position changes (`reader.tracking.reordered`), before the persons are selected. max_frame:
    that are kept. Raises BadRecording, naming `where` and the line, for a truncated file, values
    that are not finite numbers, a wrong number of joints, or text after the last frame.
    """
    with reading(where):
        if data.count(b"\n") > MAX_LINE:
            raise Unusable(f"{data.count(bytes([10])):,} lines; allowed: {MAX_LINE:,}")
        text = _Text(data.removeprefix(codecs.BOM_UTF8))
        layout = _find_bodies(text, max_frame)
        joints = _joints(text, layout.rows)
    length = min(layout.num_frame, max_frame)
    num_slot = min(layout.most_bodies, MAX_BODY)
    bodies = np.zeros((num_slot, length, NUM_JOINT, 3), np.float32)  # slot, T, V, C
    bodies[layout.slots, layout.frames] = joints
    tracked, swaps = reordered(bodies.transpose(3, 1, 2, 0))
    if repair_order and swaps:
        bodies = np.ascontiguousarray(tracked.transpose(3, 1, 2, 0))
    positions = np.zeros((3, length, NUM_JOINT, NUM_PERSON), np.float32)  # C, T, V, M
    for m, slot in enumerate(_most_moving(bodies)):
        positions[..., m] = bodies[slot].transpose(2, 0, 1)  # T, V, C -> C, T, V
    return Clip(
        positions=positions,
        length=length,
        is_truncated=layout.num_frame > max_frame,
        has_extra_body=layout.most_bodies > MAX_BODY,
        empty_frames=length - len(set(layout.frames)),
        swaps=swaps,
    )


def _find_bodies(text: _Text, max_frame: int) -> _Layout:
    """Follow the counts through the whole file, without parsing the lines of joints."""
    layout = _Layout([], [], [], num_frame=_count(text, 0, "frames"), most_bodies=0)
    if layout.num_frame == 0:
        raise Unusable("line 1: 0 frames; must be 1 or more")
    row = 1
    for t in range(layout.num_frame):
        num_body = _count(text, row, "bodies")
        layout.most_bodies = max(layout.most_bodies, num_body)
        row += 1
        for slot in range(num_body):
            num_joint = _count(text, row + 1, "joints")
            if num_joint != NUM_JOINT:
                raise Unusable(f"line {row + 2}: {num_joint} joints; must be {NUM_JOINT}")
            row += 2
            if t < max_frame and slot < MAX_BODY:
                layout.rows.append(row)
                layout.frames.append(t)
                layout.slots.append(slot)
            row += NUM_JOINT
    _check_end(text, row, num_body > 0)
    return layout


def _count(text: _Text, row: int, what: str) -> int:
    """The number of `what` in line `row`."""
    begins = text.begins
    try:
        field = text.data[begins[row] : begins[row + 1]]
        count = -1 if b"_" in field else int(field)  # Python reads 1_0 as 10
    except IndexError as error:
        raise _ends_early(text) from error
    except ValueError:
        count = -1
    if count < 0:
        raise Unusable(f"line {row + 1}: {_shown(text.line(row))} is not a number of {what}")
    return count


def _check_end(text: _Text, row: int, ends_in_joint: bool) -> None:
    """Check that the text has `row` lines, the number up to the end of the last frame."""
    if row > len(text):
        raise _ends_early(text)
    # A file that is truncated within its last line still has every line.
    num_field = len(text.line(row - 1).split())
    if ends_in_joint and num_field != NUM_FIELD:
        raise Unusable(f"line {row}: {num_field} fields; must be {NUM_FIELD}")
    for extra in range(row, len(text)):
        if text.line(extra):
            raise Unusable(
                f"line {extra + 1}: {_shown(text.line(extra))} after the last frame; the number of "
                "frames in line 1 is wrong",
            )


def _ends_early(text: _Text) -> Unusable:
    return Unusable(f"line {len(text)}: the file ends before its last frame")


def _joints(text: _Text, rows: Sequence[int]) -> np.ndarray:
    """x, y, z of the joints of each body: (len(rows), V, C) float32, metres."""
    if not rows:
        return np.empty((0, NUM_JOINT, 3), np.float32)
    lines = (np.array(rows)[:, None] + np.arange(NUM_JOINT)).ravel()
    # Four lines precede the first joint: at least the 8 bytes that first_three requires.
    values = first_three(text.data, text.offsets[lines])
    # In this form NaN fails the comparison.
    is_usual = values is not None and np.abs(values).max() <= MAX_COORDINATE
    if values is None or not is_usual or not _have_all_fields(text, lines):
        values = np.array([_joint(text, row) for row in lines.tolist()])
    return values.astype(np.float32).reshape(len(rows), NUM_JOINT, 3)


def _have_all_fields(text: _Text, lines: np.ndarray) -> bool:
    """Whether NUM_FIELD fields, with single spaces in between, are in each of these lines: with one
    less, the others would be taken for their neighbours."""
    is_space = np.append(np.frombuffer(text.data, np.uint8) == ord(" "), False)
    edges = np.column_stack([text.offsets[lines], text.offsets[lines + 1]]).ravel()
    spaces = np.add.reduceat(is_space, edges, dtype=np.uint16)[::2]
    return bool((spaces == NUM_FIELD - 1).all())


def _joint(text: _Text, row: int) -> list[float]:
    """x, y, z of one line, for invalid or unusual text (tabs, aligned columns)."""
    fields = text.line(row).split()
    if len(fields) != NUM_FIELD:
        raise Unusable(f"line {row + 1}: {len(fields)} fields; must be {NUM_FIELD}")
    values = []
    for field in fields[:3]:
        try:
            values.append(np.nan if b"_" in field else float(field))  # Python reads 1_0 as 10
        except ValueError:
            values.append(np.nan)
        if not abs(values[-1]) <= MAX_COORDINATE:
            raise Unusable(f"line {row + 1}: {_shown(field)} is not a coordinate in metres")
    return values


def _most_moving(bodies: np.ndarray) -> Sequence[int]:
    """Slots of the NUM_PERSON bodies with the most energy, highest first; bodies: (slot, T, V, C).

    On a tie the later slot is first, as with the reversed sort of the public code.
    """
    if len(bodies) < 2:
        return range(len(bodies))
    energies = [energy(body) for body in bodies]
    return np.argsort(energies, kind="stable")[::-1][:NUM_PERSON].tolist()


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("ascii", "replace"))
