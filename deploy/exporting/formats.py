"""The files of a static model, and the shapes of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from model.streaming.plan import Plan

PARAMS = ".pdiparams"
Shape = Sequence[int | str]  # a dynamic axis has a name instead of a size


class Format(NamedTuple):
    """program: ending of the file that engines load. files: endings of all files, in the order in
    which they are published."""

    program: str
    files: tuple[str, ...]


FORMATS = {
    "paddle": Format(".pdmodel", (PARAMS, ".pdmodel", ".meta.yaml")),
    "onnx": Format(".onnx", (".onnx",)),
    "json": Format(".json", (PARAMS, ".json", ".meta.yaml")),
}


@dataclass(frozen=True)
class Sizes:
    """What shapes follow from. batch: N, 0 where it is dynamic. persons: M of the input. joints: V.
    channels: I*C of all branches. frames: T of a whole clip. tail_margin, tail_stride: how far a
    clip with a zero-padded tail may be truncated (model/timing.py); 0, 0: not at all. plan: of a
    streaming network, else None."""

    batch: int
    persons: int
    joints: int
    channels: int
    frames: int
    tail_margin: int = 0
    tail_stride: int = 0
    plan: Plan | None = None


def static_shape(shape: Shape) -> list[int]:
    """The same with -1 for each dynamic axis, as Paddle and the engines write it."""
    return [-1 if isinstance(size, str) else size for size in shape]
