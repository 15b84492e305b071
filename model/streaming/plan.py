"""When the frames of a streaming network belong to the clip, and what it remembers. NumPy only.

A streaming network takes `chunk` frames a step. In the clip network, every convolution over time
sees zeros before the first and after the last frame at its own input. A step therefore multiplies
these inputs by a mask, computed here from the number of frames before the step.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from errors import UserError

INSIDE, SHARE = "inside", "share"


@dataclass(frozen=True)
class Frames:
    """The frames of a tensor in one step.

    spacing: input frames from one to the next. every: from one frame of the clip network to the
    next, in frames of this tensor; above 1 in the dilated form. lag: its first frame is this many
    of its frames behind the first of the step. count: frames in a step.
    """

    spacing: int
    every: int
    lag: int
    count: int

    def indices(self, first: int) -> np.ndarray:
        """(count,) of its frames in a step, below 0 before the clip. first: frames before the
        step."""
        return first // self.spacing - self.lag + np.arange(self.count)

    def size(self, length: int) -> int:
        """Frames of this tensor in a clip of `length` frames."""
        return -(-length // self.spacing)


@dataclass(frozen=True)
class Slot:
    """A part of the input `mask`. kind: INSIDE, 1 inside of the clip, else 0; or SHARE, one over
    the number of the clip network's frames so far."""

    kind: str
    frames: Frames

    def values(self, first: int, length: int | None) -> np.ndarray:
        """(count,) in a step. first: frames before it. length: of the clip, None while unknown."""
        index = self.frames.indices(first)
        if self.kind == SHARE:
            return 1 / (np.maximum(index, 0) // self.frames.every + 1)
        inside = index >= 0
        return inside if length is None else inside & (index < self.frames.size(length))


@dataclass(frozen=True)
class WindowSum:
    """An unweighted sum over time of the last `taps` frames at this spacing: computed outside of
    the step, which gets for each of its frames the sum of those before the step, and gives its
    frames."""

    taps: int
    spacing: int


@dataclass(frozen=True)
class Plan:
    """A streaming network over time.

    chunk: frames of a step. slots: parts of the input `mask`, in order. states: name -> (C, frames,
    V) of each state, in order: an input and an output of the step; zeros at the start. sums: those
    states that are sums over time. output: the frames of its logits.
    receptive_field, delay: of a position (model/timing.py), in frames. stride: frames from one
    position of the clip network to the next.
    """

    chunk: int
    slots: tuple[Slot, ...]
    states: dict[str, tuple[int, int, int]]
    sums: dict[str, WindowSum]
    output: Frames
    receptive_field: int
    delay: int
    stride: int

    def mask(self, first: int, length: int | None) -> np.ndarray:
        """(1, 1, S, 1) float32: the input `mask` of a step. Arguments: see `Slot.values`."""
        parts = [slot.values(first, length) for slot in self.slots]
        return np.concatenate(parts).astype(np.float32).reshape(1, 1, -1, 1)

    def positions(self, first: int, length: int | None) -> list[int | None]:
        """The input frames that the logits of a step belong to; None for those outside of the
        clip."""
        size = None if length is None else self.output.size(length)
        indices = self.output.indices(first).tolist()
        return [
            None if n < 0 or (size is not None and n >= size) else n * self.output.spacing
            for n in indices
        ]

    def steps(self, length: int) -> int:
        """Steps after which a clip of `length` frames, at least 1, has all of its positions."""
        last = (self.output.size(length) - 1 + self.output.lag) * self.output.spacing
        return last // self.chunk + 1

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, for `from_mapping`."""
        tree = dataclasses.asdict(self)
        tree["slots"] = list(tree["slots"])
        tree["states"] = {name: list(shape) for name, shape in self.states.items()}
        return tree

    @classmethod
    def from_mapping(cls, tree: Any, where: str) -> Plan:
        """Raises UserError, starting with `where`, for anything but the result of `to_mapping`."""
        try:
            values = dict(tree)
            slots = tuple(Slot(s["kind"], Frames(**s["frames"])) for s in values.pop("slots"))
            states = {name: shape_of(shape) for name, shape in values.pop("states").items()}
            sums = {name: WindowSum(**s) for name, s in values.pop("sums").items()}
            plan = cls(
                slots=slots,
                states=states,
                sums=sums,
                output=Frames(**values.pop("output")),
                **values,
            )
            found = [plan.output, *(slot.frames for slot in slots)]
            numbers = [plan.chunk, plan.stride]
            numbers += [n for f in found for n in (f.spacing, f.every, f.count)]
            least = [*((n, 1) for n in numbers), *((f.lag, 0) for f in found)]
            known = all(slot.kind in (INSIDE, SHARE) for slot in slots)
            if not known or not all(type(n) is int and n >= low for n, low in least):
                raise ValueError("a number of frames or a kind that is not allowed")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{where}: not of a streaming model: {error}; export again") from error
        return plan


def shape_of(sizes: Any) -> tuple[int, int, int]:
    """(C, frames, V) of a state. Raises ValueError for another number of sizes."""
    channels, frames, joints = (int(size) for size in sizes)
    return channels, frames, joints
