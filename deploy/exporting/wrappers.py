"""The layers that are traced, one for each contract (deploy/exporting/contracts.py), and the dummy
inputs of the proof (deploy/exporting/verify.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from deploy.exporting.formats import Sizes
from deploy.exporting.verify import DummyInput
from model.network import ClipNetwork
from model.streaming.network import StreamingNetwork
from model.streaming.plan import Plan
from model.streaming.state import StreamState, advance

BATCH_SIZES = (1, 3)  # compared with the network where the batch axis is dynamic
AILIA_SIZES = ((32, 2), (50, 1), (9, 3))  # T and M
PROVEN_STEPS = 2  # at the start, at the end and in the middle of a stream, each


class Wrapper(nn.Layer):
    """A network with the inputs and outputs of a contract: `forward` is traced. plan: of a
    streaming network, else None."""

    plan: Plan | None = None

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def arranged(self, inputs: list[Any]) -> list[Any]:
        """The inputs of the contract as the arguments of `forward`."""
        return inputs

    def dummy_inputs(self, sizes: Sizes) -> list[DummyInput]:
        """Random inputs of several shapes, and the network's answers in dygraph. The network must
        be in evaluation mode."""
        raise NotImplementedError


class ClipWrapper(Wrapper):
    """clips (N, M*V, I*C, T), cut (N, 1, 1, 1) or none -> logits (N, num_class), and feature
    (P, C', T', V) where requested; then without cut."""

    def __init__(self, network: ClipNetwork, with_feature: bool) -> None:
        super().__init__(network)
        self.with_feature = with_feature

    def forward(self, clips: Tensor, cut: Tensor | None = None) -> Any:
        return self.network.with_feature(clips) if self.with_feature else self.network(clips, cut)

    def dummy_inputs(self, sizes: Sizes) -> list[DummyInput]:
        """The last one has a constant tail where clips may be truncated: the network gets the whole
        clip, the static model the truncated one."""
        rng = np.random.RandomState(0)
        found = []
        batches = (sizes.batch,) if sizes.batch else BATCH_SIZES
        for batch in batches:
            frames, stride = sizes.frames, sizes.tail_stride
            shape = (batch, sizes.persons * sizes.joints, sizes.channels, frames)
            clips = rng.standard_normal(shape).astype(np.float32)
            if stride and batch == batches[-1]:
                clips[..., frames // 4 :] = clips[..., -1:]
                frames = min(-(-(frames // 4) // stride) * stride + sizes.tail_margin, frames)
            feeds = {"clips": clips[..., :frames]}
            if stride:
                feeds["cut"] = np.full((batch, 1, 1, 1), 1 - frames / sizes.frames, np.float32)
            found.append(DummyInput(feeds, answers(self, clips)))
        return found


class ScoreMaps(Wrapper):
    """data (1, C, T, V, M) -> score map (1, num_class, T', V, M), feature (1, C', T', V, M)."""

    def forward(self, data: Tensor) -> list[Tensor]:
        clips = data.squeeze(0).transpose([3, 2, 0, 1])  # (M, V, C, T): a clip for each person
        maps = self.network.extract_feature(clips)  # (M, C', T', V)
        return [x.transpose([1, 2, 3, 0]).unsqueeze(0) for x in maps]

    def dummy_inputs(self, sizes: Sizes) -> list[DummyInput]:
        rng = np.random.RandomState(0)
        found = []
        for t, m in AILIA_SIZES:
            data = rng.standard_normal((1, sizes.channels, t, sizes.joints, m)).astype(np.float32)
            clip = data[0].transpose(3, 2, 0, 1).reshape(1, -1, sizes.channels, t)  # (1, M*V, C, T)
            maps = answers(self.network.extract_feature, clip)  # (M, C', T', V)
            found.append(DummyInput({"data": data}, [x.transpose(1, 2, 3, 0)[None] for x in maps]))
        return found


class StreamWrapper(Wrapper):
    """See `StreamingNetwork.forward`."""

    def __init__(self, network: ClipNetwork, dilated: bool, chunk: int) -> None:
        super().__init__(StreamingNetwork(network, dilated=dilated, chunk=chunk))
        self.plan: Plan = self.network.plan

    def forward(self, frames: Tensor, others: list[Tensor]) -> list[Tensor]:
        return self.network(frames, others)

    def arranged(self, inputs: list[Any]) -> list[Any]:
        return [inputs[0], inputs[1:]]

    def dummy_inputs(self, sizes: Sizes) -> list[DummyInput]:
        """Steps of a stream of random frames that is a little longer than the receptive field, at
        its start, in the middle and at its end, with the states that the network had there."""
        plan, rng = self.plan, np.random.RandomState(0)
        length = plan.receptive_field + 2 * plan.chunk + 1
        last = plan.steps(length) - 1
        wanted = {k + n for k in (0, last // 2, last) for n in range(-PROVEN_STEPS, PROVEN_STEPS)}
        found: list[DummyInput] = []

        def record(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            expected = self.network.run(feeds)
            if step in wanted:
                found.append(DummyInput(feeds, expected))
            return expected

        for batch in (sizes.batch,) if sizes.batch else BATCH_SIZES:
            state = StreamState(plan, rows=batch)
            for step in range(last + 1):
                frames = rng.standard_normal((batch, sizes.joints, sizes.channels, plan.chunk))
                known = length if (step + 1) * plan.chunk > length else None
                advance(record, plan, [state], [frames.astype(np.float32)], [known])
        return found


def answers(function: Callable[[Tensor], Any], x: np.ndarray) -> list[np.ndarray]:
    """The outputs of a function that returns a tensor or a tuple of tensors, without gradients."""
    with paddle.no_grad():
        outputs = function(paddle.to_tensor(x))
    return [y.numpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]
