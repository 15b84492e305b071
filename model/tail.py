"""Truncated clips: a zero-padded tail is computed once and counted as often as it occurs.

Behind the last recorded frame of a clip every input feature stays constant until the clip ends. In
evaluation so does every activation, except near both ends of that tail, where a convolution over
time sees recorded frames or its own zero padding. So T' < T frames are enough: the recorded ones, a
margin, one representative frame, a margin. A mean over frames counts the representative frame for
all frames that were removed; nothing else mixes frames. This is exact but for rounding:
docs/performance.md, tests/test_tail.py. model/timing.py computes the margin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paddle import Tensor

from model.timing import Timing, frames_after


@dataclass(frozen=True)
class Tail:
    """The constant tail of truncated clips, at one layer.

    removed: (P, 1, 1, 1), the share of the whole clip's frames that was removed, 0 to 1. after:
    frames between the representative frame and the end of the clip.
    """

    removed: Tensor
    after: int = 0

    def through(self, timings: Iterable[Timing]) -> Tail:
        """The same behind these convolutions."""
        after = self.after
        for timing in timings:
            after = frames_after(after, timing)
        return Tail(self.removed, after)

    def mean(self, x: Tensor) -> Tensor:
        """Mean over all frames of the whole clip, (P, C, T', V) -> (P, C, 1, V)."""
        mean = x.mean(axis=2, keepdim=True)
        t = -1 - self.after
        representative = x[:, :, t : t + 1 or None]  # (P, C, 1, V)
        return mean + self.removed * (representative - mean)
