"""Temporal geometry: the only place that knows kernel, stride, dilation and padding over time.

Every temporal layer declares `timings`, its convolutions over time in the order in which they run.
Composed, they give what the rest of the system asks for: receptive field, delay, total stride, and
how short a clip with a constant tail may be truncated (model/tail.py). Residual connections have a
kernel of one frame and never widen the receptive field, so they declare nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """One convolution over time.

    kernel: taps. stride, dilation: in frames of its input. padding: zero frames before the first
    one; after the last one there are as many as make ceil(T / stride) outputs. Output o depends on
    the input frames from o * stride - padding to o * stride + delay.
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    @classmethod
    def centred(cls, kernel: int, stride: int = 1, dilation: int = 1) -> Timing:
        """Of an odd kernel that looks as far ahead as back."""
        return cls(kernel, stride, dilation, dilation * (kernel - 1) // 2)

    @property
    def delay(self) -> int:
        """Input frames that an output needs after its own one."""
        return self.dilation * (self.kernel - 1) - self.padding


@dataclass(frozen=True)
class Geometry:
    """Of a chain of temporal layers, in frames of the network's input.

    receptive_field: frames that one output depends on. delay: those of them after the output's own
    frame, o * stride. stride: input frames for each output frame. tail_margin: a clip that stays
    constant from frame L on may be truncated to L + tail_margin frames, where L and the length of
    the whole clip are multiples of the stride.
    """

    receptive_field: int = 1
    delay: int = 0
    stride: int = 1
    tail_margin: int = 1


def compose(timings: Iterable[Timing]) -> Geometry:
    """The geometry of convolutions that run one after the other.

    The margin holds for means over frames anywhere on the way too, because it never falls from
    one layer to the next.
    """
    receptive_field, delay, stride = 1, 0, 1
    # Of the constant tail at this layer: frames after L until it starts, and from its last frame
    # to the end of the clip.
    before, after = 0, 0
    for timing in timings:
        receptive_field += timing.dilation * (timing.kernel - 1) * stride
        delay += timing.delay * stride
        stride *= timing.stride
        before = -(-(before + timing.padding) // timing.stride)
        after = frames_after(after, timing)
    return Geometry(receptive_field, delay, stride, stride * (before + after + 1))


def frames_after(after: int, timing: Timing) -> int:
    """Output frames after the last one of a constant tail. after: the same of the input, whose
    length is a multiple of the stride."""
    return -(-(after + timing.delay + 1) // timing.stride) - 1


def timings_of(layers: Iterable[Any]) -> tuple[Timing, ...]:
    """The convolutions over time of layers that run one after the other."""
    return tuple(timing for layer in layers for timing in getattr(layer, "timings", ()))
