"""Shapes of a static model's inputs, and the sizes that they follow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

Shape = Sequence[Union[int, str]]  # a dynamic axis has a name instead of a size


@dataclass(frozen=True)
class Sizes:
    """batch: N, 0 where it is dynamic. persons: M of the input. joints: V. channels: I*C of all
    branches. frames: T of a whole clip. tail_margin, tail_stride: how far a clip with a zero-padded
    tail may be truncated (model/timing.py); 0, 0 where the model takes whole clips."""

    batch: int
    persons: int
    joints: int
    channels: int
    frames: int
    tail_margin: int = 0
    tail_stride: int = 0


def static_shape(shape: Shape) -> list[int]:
    """The same with -1 for each dynamic axis, as Paddle and the engines write it."""
    return [-1 if isinstance(size, str) else size for size in shape]
