"""Small networks, plain references and golden weights that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from configs.model import EfficientGCNArgs, STGCNArgs
from configs.schema import Config
from dataset.protocols import data_spec
from dataset.skeletons import Skeleton, skeleton
from model import build
from model.efficientgcn import EfficientGCN
from model.network import ClipNetwork, Shape
from model.stgcn import STGCN
from training.checkpoint import load_pretrained
from utils import set_seed

NTU_25 = skeleton("ntu-25")

SMALL: dict[str, Any] = {"stem_channel": 8, "block_args": ((16, 1, 1), (16, 1, 0), (16, 2, 2))}


def efficientgcn(phi: int = 0, branches: int = 3, persons: int = 2, **changes: Any) -> EfficientGCN:
    """For 25 joints and 60 classes. changes: of `model_args`."""
    args = EfficientGCNArgs(**changes)
    shape = Shape((6,) * branches, persons, 60)
    return build.build_efficientgcn(args, args.model_types[phi], NTU_25, shape)


def stgcn(
    layout: Skeleton = NTU_25, num_class: int = 60, persons: int = 2, channels: int = 3,
    **changes: Any,
) -> STGCN:  # fmt: skip
    """changes: of `model_args`."""
    shape = Shape((channels,), persons, num_class)
    return build.build_stgcn(STGCNArgs(**changes), "ST-GCN", layout, shape)


def network_of(config: Config, persons: int = 2) -> ClipNetwork:
    """Of a configuration, with its weights, or random ones of its seed."""
    set_seed(config.seed)
    network = build.build_network(
        config, data_spec(config.dataset, config.data.own_layout), persons
    )
    if config.pretrained_path:
        load_pretrained(network, config.pretrained_path)
    return network


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
