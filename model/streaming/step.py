"""One step through a streaming network: states in and out, masks, and delays.

Every tensor over time knows how many frames it lags behind the input. A sum of two tensors delays
the earlier one, so residual connections and branches meet at the same frame of the clip.

Two forms of a layer with a stride: *strided*, which gives one frame for `stride` frames, and
*dilated*, which gives a frame for every frame and dilates all later convolutions by the stride
(continual inference, Hedegaard et al., 2023). In the dilated form, every position is that of the
clip network for a clip whose frames start at this phase of the stride.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.layers import ConvNorm
from model.streaming.plan import INSIDE, SHARE, Frames, Slot, WindowSum
from model.timing import Timing


class Signal(NamedTuple):
    """x: (P, C, count, V), the frames of this step."""

    x: Tensor
    frames: Frames

    def replaced(self, x: Tensor) -> Signal:
        """The same frames after a frame-wise layer."""
        return Signal(x, self.frames)


class Step:
    """What a step reads and writes.

    dilated: the form. states: name -> (P, C, frames, V) before the step. masks: slot -> (P, 1,
    count, 1). Without them, states are zeros, nothing is masked, and both are recorded: in `slots`,
    and as the shapes of `new_states`.
    """

    def __init__(
        self,
        dilated: bool,
        states: Mapping[str, Tensor] | None = None,
        masks: Mapping[Slot, Tensor] | None = None,
    ) -> None:
        self.dilated = dilated
        self.new_states: dict[str, Tensor] = {}
        self.sums: dict[str, WindowSum] = {}
        self.slots: dict[Slot, None] = {}  # in order of their first use
        self._states, self._masks = states, masks
        self._path: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """States inside have names that start with this one."""
        self._path.append(name)
        yield
        self._path.pop()

    def conv(self, signal: Signal, conv: nn.Layer, timing: Timing, name: str = "conv") -> Signal:
        """A convolution over time as the clip network computes it, zero padding included."""
        before = signal.frames
        stride = 1 if self.dilated else timing.stride
        dilation = timing.dilation * before.every
        delay = (before.every * timing.delay) + before.lag
        wait = -delay % stride  # frames, so that the strided outputs are those of the clip
        x = signal.x
        if timing.kernel > 1:
            x = x * self._mask(INSIDE, before)
        kept = dilation * (timing.kernel - 1) + wait
        if kept:
            both = self._with_past(Signal(x, before), kept, name)
            x = both[:, :, : before.count + kept - wait]
        y = F.conv2d(
            x, conv.weight, stride=(stride, 1), dilation=(dilation, 1), groups=conv._groups
        )
        if conv.bias is not None:
            y = y + conv.bias.reshape([-1, 1, 1])
        lag, count = (delay + wait) // stride, before.count // stride
        if self.dilated:
            return Signal(y, Frames(before.spacing, before.every * timing.stride, lag, count))
        return Signal(y, Frames(before.spacing * stride, before.every, lag, count))

    def residual(self, signal: Signal, layer: nn.Layer, stride: int) -> Signal:
        """A residual connection (model/layers.py: identity, or convolution and norm)."""
        if isinstance(layer, nn.Identity):
            return signal
        assert isinstance(layer, ConvNorm)
        y = self.conv(signal, layer[0], Timing(stride=stride), "wait")
        return y.replaced(layer[1](y.x))

    def add(self, a: Signal, b: Signal) -> Signal:
        """The sum at the same frames of the clip."""
        late = max(a.frames.lag, b.frames.lag)
        a, b = self.delayed(a, late), self.delayed(b, late)
        return a.replaced(a.x + b.x)

    def delayed(self, signal: Signal, lag: int, name: str = "delay") -> Signal:
        """The signal with a lag of `lag` frames, at least its own."""
        frames = signal.frames
        if lag == frames.lag:
            return signal
        both = self._with_past(signal, lag - frames.lag, name)
        return Signal(both[:, :, : frames.count], dataclasses.replace(frames, lag=lag))

    def mean_so_far(self, signal: Signal) -> Tensor:
        """Mean over the clip's frames up to each one, (P, C, count, V). In the dilated form, over
        those of its phase."""
        frames = signal.frames
        x = signal.x * self._mask(INSIDE, frames)
        every = frames.every
        past = self._state("sum", x, every)  # sums up to the last `every` frames
        if every > 1:
            x = x + past[:, :, :1]  # the dilated form: one frame in a step
            self._keep("sum", paddle.concat([past[:, :, 1:], x], axis=2))
        else:
            x = past + _summed(x, frames.count, WindowSum(taps=frames.count, spacing=1))
            self._keep("sum", x[:, :, frames.count - 1 :])
        return x * self._mask(SHARE, frames)

    def window_sum(self, signal: Signal, window: WindowSum) -> Signal:
        """Sum over the last frames of the clip. The state is the part of it from before the step:
        the caller keeps it (model/streaming/state.py), at a cost that does not depend on the number
        of frames in the window."""
        count = signal.frames.count
        self.sums[self._name("sum")] = window
        past = self._state("sum", signal.x, count)
        self._keep("sum", signal.x)
        return signal.replaced(past + _summed(signal.x, count, window))

    def _mask(self, kind: str, frames: Frames) -> Tensor | float:
        slot = Slot(kind, frames)
        self.slots[slot] = None
        return 1.0 if self._masks is None else self._masks[slot]

    def _with_past(self, signal: Signal, kept: int, name: str) -> Tensor:
        """The `kept` frames before this step and those of it; keeps the last ones."""
        both = paddle.concat([self._state(name, signal.x, kept), signal.x], axis=2)
        self._keep(name, both[:, :, signal.frames.count :])  # x.shape[2] is -1 in a traced graph
        return both

    def _state(self, name: str, x: Tensor, frames: int) -> Tensor:
        if self._states is None:
            return paddle.zeros([x.shape[0], x.shape[1], frames, x.shape[3]])
        return self._states[self._name(name)]

    def _keep(self, name: str, x: Tensor) -> None:
        full = self._name(name)
        assert full not in self.new_states, full  # two states of one name
        self.new_states[full] = x

    def _name(self, name: str) -> str:
        return "_".join([*self._path, name])


def _summed(x: Tensor, count: int, window: WindowSum) -> Tensor:
    """Each frame of a step, (P, C, count, V), and those of the same step in its window."""
    if count == 1:
        return x
    before = np.subtract.outer(np.arange(count), np.arange(count))
    inside = (before >= 0) & (before < window.taps * window.spacing)
    inside &= before % window.spacing == 0
    return paddle.matmul(paddle.to_tensor(inside.astype(np.float32)), x)
