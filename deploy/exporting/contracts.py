"""What a static model takes and gives.

clips   clips (N, M*V, I*C, T), and cut (N, 1, 1, 1) where tails may be cut (model/tail.py)
        -> logits (N, num_class), and feature (P, C', T', V) if asked for
ailia   data (1, C, T, V, M), T and M free
        -> output (1, num_class, T', V, M), feature (1, C', T', V, M)

The first is all rank 4. The second is what a public sample of ST-GCN wants: rank 5 in what goes in
and comes out, rank 4 inside. The mean of `output` over T', V and M is the clip's logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor, nn

from deploy.meta import StaticMeta

INPUTS = {"clips": ("clips", "cut"), "ailia": ("data",)}
BORDER_RANK = {"clips": 4, "ailia": 5}  # axes of inputs and outputs
BATCH_SIZES = (1, 3)  # compared with the network
AILIA_TRIALS = ((32, 2), (50, 1), (9, 3))  # T and M


class WithFeature(nn.Layer):
    """Gives (logits, feature (P, C', T', V)) where the network alone gives logits."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.with_feature(clips)


class ScoreMaps(nn.Layer):
    """(1, C, T, V, M) -> score map (1, num_class, T', V, M), feature (1, C', T', V, M)."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, data: Tensor) -> tuple[Tensor, Tensor]:
        clips = data.squeeze(0).transpose([3, 2, 0, 1])  # (M, V, C, T): a clip for each person
        score_map, feature = self.network.extract_feature(clips)  # (M, C', T', V)
        return self._with_persons_last(score_map), self._with_persons_last(feature)

    @staticmethod
    def _with_persons_last(x: Tensor) -> Tensor:
        return x.transpose([1, 2, 3, 0]).unsqueeze(0)


def traced(network: nn.Layer, meta: StaticMeta) -> nn.Layer:
    """The network as its contract shows it."""
    if meta.contract == "ailia":
        return ScoreMaps(network)
    return WithFeature(network) if "feature" in meta.outputs else network


@dataclass(frozen=True)
class Trial:
    """feeds: of a static model. expected: its outputs, by the network."""

    feeds: dict[str, np.ndarray]
    expected: list[np.ndarray]


def make_trials(network: nn.Layer, meta: StaticMeta, num_joint: int) -> list[Trial]:
    """Random inputs of several shapes and what the network makes of them, tail and all."""
    network.eval()
    rng = np.random.RandomState(0)
    shape = meta.input_shapes(num_joint)[0]
    if meta.contract == "ailia":
        datas = [rng.standard_normal((1, shape[1], t, num_joint, m)) for t, m in AILIA_TRIALS]
        return [_ailia_trial(network, data.astype(np.float32)) for data in datas]
    sizes = (meta.batch_size,) if meta.batch_size else BATCH_SIZES
    shapes = [(size, *shape[1:3], meta.clip_pipeline().num_frame) for size in sizes]
    wholes = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    fed = list(wholes)
    if meta.tail_stride:  # the last has a constant tail: whole for one, short for the other
        real = meta.clip_pipeline().num_frame // 4
        wholes[-1][..., real:] = wholes[-1][..., -1:]
        frames = -(-real // meta.tail_stride) * meta.tail_stride + meta.tail_margin
        fed[-1] = wholes[-1][..., : min(frames, meta.clip_pipeline().num_frame)]
    return [_clip_trial(network, whole, short, meta) for whole, short in zip(wholes, fed)]


def _clip_trial(network: nn.Layer, whole: np.ndarray, fed: np.ndarray, meta: StaticMeta) -> Trial:
    with paddle.no_grad():
        outputs = network.with_feature(paddle.to_tensor(whole))
    expected = [output.numpy() for output in outputs][: len(meta.outputs)]
    feeds = {"clips": fed}
    if meta.tail_stride:
        share = 1 - fed.shape[-1] / meta.clip_pipeline().num_frame
        feeds["cut"] = np.full((len(fed), 1, 1, 1), share, np.float32)
    return Trial(feeds, expected)


def _ailia_trial(network: nn.Layer, data: np.ndarray) -> Trial:
    _, c, t, v, m = data.shape
    clip = data[0].transpose(3, 2, 0, 1).reshape(1, m * v, c, t)
    with paddle.no_grad():
        outputs = network.extract_feature(paddle.to_tensor(clip))
    expected = [output.numpy().transpose(1, 2, 3, 0)[None] for output in outputs]
    return Trial({"data": data}, expected)
