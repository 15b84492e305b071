"""A clip's constant tail, run once and counted for all of it.

Behind a clip's last real frame every input feature stays as it is until the clip ends. In
evaluation so does every activation, but for frames near either end of that run: a convolution over
time mixes them with what is real in front, or with its zero padding behind. So T' < T frames are
enough: the real ones, a margin, one frame that stands for all that were cut out, a margin. A mean
over frames then counts that one frame for the others too; nothing else mixes frames. This is exact
but for rounding: docs/performance.md, tests/test_tail.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddle import Tensor, nn


def time_windows(layer: nn.Layer) -> list[tuple[int, int]]:
    """(padding, stride) of each convolution over time in a layer, in the order of its definition,
    which is that of its work. Ways around a layer have a window of one frame: they reach less."""
    convs = [part for part in layer.sublayers(include_self=True) if isinstance(part, nn.Conv2D)]
    return [
        (c._dilation[0] * (c._kernel_size[0] // 2), c._stride[0])
        for c in convs
        if c._kernel_size[0] > 1
    ]


@dataclass(frozen=True)
class Tail:
    """share: (P, 1, 1, 1), the part of the whole clip's frames that were cut out, 0 to 1.
    behind: frames between the one that stands for them and the clip's end, at this layer."""

    share: Tensor
    behind: int = 0

    def after(self, layer: nn.Layer) -> Tail:
        """The same behind a layer."""
        behind = self.behind
        for padding, stride in time_windows(layer):
            behind = _frames_behind(behind, padding, stride)
        return Tail(self.share, behind)

    def mean(self, x: Tensor) -> Tensor:
        """Mean over the whole clip's frames, (P, C, T', V) -> (P, C, 1, V)."""
        mean = x.mean(axis=2, keepdim=True)
        t = -1 - self.behind
        frame = x[:, :, t : t + 1 or None]  # (P, C, 1, V)
        return mean + self.share * (frame - mean)


def tail_margin(path: Sequence[nn.Layer], means: Sequence[bool]) -> tuple[int, int]:
    """What a network needs besides a clip's real frames: (frames, total stride).

    path: its layers from input to output. means: whether a layer takes a mean over frames before
    it does anything else; behind the last, there is one always. A clip of L real frames, L and T
    multiples of the stride, may be cut to L + frames, or more.
    """
    front = behind = 0  # frames until the run starts, behind L, and from its end to the clip's
    scale, needed = 1, 0
    for layer, mean in zip(path, means):
        if mean:
            needed = max(needed, scale * (front + behind + 1))
        for padding, stride in time_windows(layer):
            front = -(-(front + padding) // stride)
            behind = _frames_behind(behind, padding, stride)
            scale *= stride
    needed = max(needed, scale * (front + behind + 1))
    return -(-needed // scale) * scale, scale


def _frames_behind(behind: int, padding: int, stride: int) -> int:
    """Frames behind the run's last one, after a convolution over time. T is a multiple of the
    stride: output o sees inputs up to o * stride + padding."""
    return -(-(behind + padding + 1) // stride) - 1
