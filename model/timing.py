"""Temporal geometry: the only module that interprets kernel size, stride, dilation and padding over
time.

Every temporal layer declares `timings`, its convolutions over time in execution order. `compose`
derives from them the receptive field, the delay, the total stride, and the length to which a clip
with a zero-padded tail may be truncated (model/tail.py). Residual connections have a kernel size of
1 and never widen the receptive field, so they are not declared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """One convolution over time.

    kernel: kernel size. stride, dilation: in input frames. padding: zero frames before the first
    input frame; after the last one, as many are added as ceil(T / stride) output frames need.
    Output frame o depends on input frames o * stride - padding to o * stride + delay.
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    @classmethod
    def centred(cls, kernel: int, stride: int = 1, dilation: int = 1) -> Timing:
        """A convolution with an odd kernel size and equal context before and after each frame."""
        return cls(kernel, stride, dilation, dilation * (kernel - 1) // 2)

    @property
    def delay(self) -> int:
        """Input frames that output frame o depends on after frame o * stride."""
        return self.dilation * (self.kernel - 1) - self.padding


@dataclass(frozen=True)
class Geometry:
    """A chain of temporal layers, measured in frames of the network's input.

    receptive_field: frames that one output frame depends on. delay: how many of them follow the
    output's own frame, o * stride. stride: input frames per output frame. tail_margin: a clip that
    is constant from frame L on may be truncated to L + tail_margin frames, where L and the length
    of the whole clip are multiples of the stride.
    """

    receptive_field: int = 1
    delay: int = 0
    stride: int = 1
    tail_margin: int = 1


def compose(timings: Iterable[Timing]) -> Geometry:
    """Geometry of convolutions in sequence.

    The margin is also large enough for means over frames at intermediate layers, because it never
    decreases from one layer to the next.
    """
    receptive_field, delay, stride = 1, 0, 1
    # Extent of the constant tail at this layer: output frames from L to its first frame, and from
    # its last frame to the end of the clip.
    before, after = 0, 0
    for timing in timings:
        receptive_field += timing.dilation * (timing.kernel - 1) * stride
        delay += timing.delay * stride
        stride *= timing.stride
        before = -(-(before + timing.padding) // timing.stride)
        after = frames_after(after, timing)
    return Geometry(receptive_field, delay, stride, stride * (before + after + 1))


def frames_after(after: int, timing: Timing) -> int:
    """Output frames after the last constant one of a tail. after: the same count for the input,
    whose length is a multiple of the stride."""
    return -(-(after + timing.delay + 1) // timing.stride) - 1


def timings_of(layers: Iterable[Any]) -> tuple[Timing, ...]:
    """The convolutions over time of layers in sequence."""
    return tuple(timing for layer in layers for timing in getattr(layer, "timings", ()))
