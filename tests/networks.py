"""Small networks, plain references and golden weights that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from dataset.graph import adjacency, efficientgcn_adjacency
from dataset.skeletons import Skeleton, skeleton
from model import build
from model.efficientgcn import EfficientGCN
from model.stgcn import STGCN

NTU_25 = skeleton("ntu-25")

EFFICIENTGCN: dict[str, Any] = {
    "stem_channel": 64,
    "block_args": [[48, 1, 0.5], [24, 1, 0.5], [64, 2, 1], [128, 2, 1]],
    "fusion_stage": 2,
    "act_type": "swish",
    "att_type": "stja",
    "layer_type": "SG",
    "drop_prob": 0.25,
    "window": 5,
    "scale_args": [1.2, 1.35],
    "expand_ratio": 0,
    "reduct_ratio": 2,
    "bias": True,
    "edge": True,
}
STGCN_BLOCKS = [[64, 1]] * 4 + [[128, 2]] + [[128, 1]] * 2 + [[256, 2]] + [[256, 1]] * 2
SMALL = {"stem_channel": 8, "block_args": [[16, 1, 1], [16, 1, 0], [16, 2, 2]]}


def efficientgcn(phi: int = 0, branches: int = 3, persons: int = 2, **changes: Any) -> EfficientGCN:
    graph = efficientgcn_adjacency(NTU_25, 2)
    settings = {**EFFICIENTGCN, **changes}
    return build.efficientgcn(
        phi, [6] * branches, 60, graph, NTU_25.parts, persons=persons, **settings
    )


def stgcn(
    layout: Skeleton = NTU_25, num_class: int = 60, persons: int = 2, channels: int = 3,
    edge_importance: bool = True, strategy: str = "spatial",
) -> STGCN:  # fmt: skip
    return build.stgcn(
        [channels],
        num_class,
        adjacency(layout, strategy),
        persons=persons,
        edge_importance=edge_importance,
        drop_prob=0.5,
        kernel_size=9,
        block_args=STGCN_BLOCKS,
    )


def num_trainable(network: paddle.nn.Layer) -> int:
    return sum(p.size for p in network.parameters() if not p.stop_gradient)


def clip_tensor_of(x: np.ndarray) -> paddle.Tensor:
    """(N, C, T, V, M) or (N, I, C, T, V, M) -> the networks' (N, M*V, I*C, T)."""
    x = x[:, None] if x.ndim == 5 else x
    n, i, c, t, v, m = x.shape
    return paddle.to_tensor(x.transpose(0, 5, 4, 1, 2, 3).reshape(n, m * v, i * c, t))


def randomise(network: paddle.nn.Layer, seed: int = 0) -> None:
    """The golden arrays' rule for weights: drawn in the order of the torch names."""
    rng = np.random.RandomState(seed)
    state = network.state_dict()
    torch_name = {
        key: key.replace("_mean", "running_mean").replace("_variance", "running_var")
        for key in state
        if key != "A" and not key.endswith(".A")
    }
    for key in sorted(torch_name, key=torch_name.get):
        shape = state[key].shape
        r = rng.standard_normal(shape)
        is_norm = key.rpartition(".")[0] + "._mean" in state
        if key.endswith("_variance"):
            value = 1 + 0.1 * np.abs(r)
        elif key.startswith("edge_importance") or (key.endswith("weight") and is_norm):
            value = 1 + 0.1 * r
        elif key.endswith("weight") and len(shape) >= 4:
            value = r / np.sqrt(np.prod(shape[1:]))
        else:
            value = 0.1 * r
        state[key].set_value(value.astype(np.float32))
