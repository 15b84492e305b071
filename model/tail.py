"""Truncated clips: run one representative frame of the zero-padded tail instead of all of it.

After the last recorded frame of a clip, every input feature is constant until the clip ends. In
evaluation every activation is constant there too, except near both ends of the tail, where a
convolution over time reads recorded frames or its own zero padding. So T' < T frames are enough:
the recorded frames, a margin, one representative frame and a second margin. A mean over frames
weights the representative frame by all frames that were removed; no other operation mixes frames.
The result is exact up to rounding (docs/performance.md, tests/test_tail.py). model/timing.py
computes the margin. Networks that do mix frames in another way, as causal attention does, are not
truncated (`ClipNetwork.truncates`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paddle import Tensor

from model.timing import Timing, frames_after


@dataclass(frozen=True)
class Tail:
    """The zero-padded tail of truncated clips, at one layer.

    removed: (P, 1, 1, 1), removed frames as a fraction of the whole clip, 0 to 1. after: frames
    that follow the representative frame.
    """

    removed: Tensor
    after: int = 0

    def through(self, timings: Iterable[Timing]) -> Tail:
        """The tail at the output of these convolutions."""
        after = self.after
        for timing in timings:
            after = frames_after(after, timing)
        return Tail(self.removed, after)

    def mean(self, x: Tensor) -> Tensor:
        """Mean over the frames of the whole clip, (P, C, T', V) -> (P, C, 1, V)."""
        mean = x.mean(axis=2, keepdim=True)
        t = -1 - self.after
        representative = x[:, :, t : t + 1 or None]  # (P, C, 1, V)
        return mean + self.removed * (representative - mean)
