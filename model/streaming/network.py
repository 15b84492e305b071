"""A clip network as a streaming network: the same weights, one step at a time.

streaming = StreamingNetwork(network)
state = StreamState(streaming.plan, rows=1)
logits = advance(streaming.run, streaming.plan, [state], [frames], [None])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from errors import UserError
from model.network import ClipNetwork
from model.streaming.forms import trunk
from model.streaming.plan import Frames, Plan, shape_of
from model.streaming.state import FRAMES, MASK
from model.streaming.step import Signal, Step

MOST_FRAMES = 64


class StreamingNetwork(nn.Layer):
    """One step of a clip network, in evaluation mode. Nothing is remembered between calls.

    dilated: a position for every frame; otherwise (strided) one for every `plan.stride` frames, as
    in the clip network. chunk: frames of a step, 0 for the fewest: one in the dilated form, whose
    steps have no more, otherwise `plan.stride`. Rows are persons: M rows for a stream, whose mean
    is its logits.
    Raises UserError for a network that needs the whole clip, and for another chunk.
    """

    def __init__(self, network: ClipNetwork, *, dilated: bool = False, chunk: int = 0) -> None:
        super().__init__()
        network.eval()
        self.network, self.dilated = network, dilated
        self.plan = self._plan(chunk)

    def _plan(self, chunk: int) -> Plan:
        """Recorded from a step on zeros."""
        network, geometry = self.network, self.network.geometry
        least = 1 if self.dilated else geometry.stride
        most = 1 if self.dilated else MOST_FRAMES
        chunk = chunk or least
        if chunk % least or not least <= chunk <= max(least, most):
            allowed = (
                "1 in the dilated form" if self.dilated else f"multiples of {least} up to {most}"
            )
            raise UserError(f"a step of {chunk} frames; allowed: {allowed}")
        joints, channels = network.num_joint, sum(network.branch_channels)
        step = Step(self.dilated)
        with paddle.no_grad():
            feature = trunk(network, step, _signal(paddle.zeros([1, joints, channels, chunk])))
        return Plan(
            chunk=chunk,
            slots=tuple(step.slots),
            states={name: shape_of(x.shape[1:]) for name, x in step.new_states.items()},
            sums=step.sums,
            output=feature.frames,
            receptive_field=geometry.receptive_field,
            delay=geometry.delay,
            stride=geometry.stride,
        )

    def forward(self, frames: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
        """frames: (P, V, I*C, chunk). others: mask (P, 1, S, 1) where the plan has slots, then the
        states in the order of the plan. Returns logits (P, num_class), of several positions
        (P, num_class, positions), and the new states."""
        slots, names = self.plan.slots, list(self.plan.states)
        masks = {}
        if slots:
            parts = paddle.split(others[0], [slot.frames.count for slot in slots], axis=2)
            masks = dict(zip(slots, parts))
        states = dict(zip(names, others[len(others) - len(names) :]))
        step = Step(self.dilated, states, masks)
        feature = trunk(self.network, step, _signal(frames))
        pooled = feature.x.mean(axis=3, keepdim=True)  # (P, C', positions, 1)
        count, num_class = feature.frames.count, self.network.num_class
        shape = [-1, num_class] if count == 1 else [-1, num_class, count]
        logits = self.network.head(pooled).reshape(shape)
        return [logits, *(step.new_states[name] for name in names)]

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """`forward` on arrays, for `advance` (model/streaming/state.py)."""
        names = [FRAMES, *[MASK] * bool(self.plan.slots), *self.plan.states]
        with paddle.no_grad():
            frames, *others = (paddle.to_tensor(feeds[name]) for name in names)
            return [y.numpy() for y in self(frames, others)]


def _signal(frames: Tensor) -> Signal:
    return Signal(frames, Frames(spacing=1, every=1, lag=0, count=frames.shape[3]))
