"""Small networks, their weights and measurements, shared by several tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle

from configs.model import EfficientGCNArgs, RTSTGCNArgs, STGCNArgs
from configs.schema import Config
from dataset.protocols import data_spec
from dataset.skeletons import Skeleton, skeleton
from deploy.exporting.contracts import ExportOptions
from deploy.exporting.export import export_network
from model import build
from model.efficientgcn import EfficientGCN
from model.network import ClipNetwork, Shape
from model.rt_stgcn import RTSTGCN
from model.stgcn import STGCN
from training.checkpoint import load_network

NTU_25 = skeleton("ntu-25")

SMALL: dict[str, Any] = {"stem_channel": 8, "block_args": ((16, 1, 1), (16, 1, 0), (16, 2, 2))}


def efficientgcn(phi: int = 0, branches: int = 3, persons: int = 2, **changes: Any) -> EfficientGCN:
    """For 25 joints and 60 classes. branches: how many inputs. changes: of `model_args`."""
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


def rt_stgcn(
    layout: Skeleton = NTU_25, num_class: int = 60, persons: int = 2, channels: int = 3,
    **changes: Any,
) -> RTSTGCN:  # fmt: skip
    """changes: of `model_args`."""
    shape = Shape((channels,), persons, num_class)
    return build.build_rt_stgcn(RTSTGCNArgs(**changes), "RT-ST-GCN", layout, shape)


def network_of(config: Config) -> ClipNetwork:
    """The network of a configuration, with its pretrained weights or random ones of its seed."""
    return load_network(config, data_spec(config.dataset, config.data.own_layout))


def exported(config: Config, folder: Path, **options: Any) -> Path:
    """The model file of a configuration's network. options: of `ExportOptions`."""
    spec = data_spec(config.dataset, config.data.own_layout)
    return export_network(network_of(config), config, spec, ExportOptions(**options), folder)


def num_trainable(network: paddle.nn.Layer) -> int:
    return sum(p.size for p in network.parameters() if not p.stop_gradient)


def clip_tensor_of(x: np.ndarray) -> paddle.Tensor:
    """(N, C, T, V, M) or (N, I, C, T, V, M) -> the networks' (N, M*V, I*C, T)."""
    x = x[:, None] if x.ndim == 5 else x
    n, i, c, t, v, m = x.shape
    return paddle.to_tensor(x.transpose(0, 5, 4, 1, 2, 3).reshape(n, m * v, i * c, t))


def randomise(network: paddle.nn.Layer, seed: int = 0) -> None:
    """Weights as in the golden arrays: drawn in the order of the parameters' names in torch."""
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
        if key.endswith("_variance"):
            value = 1 + 0.1 * np.abs(r)
        elif key.endswith("weight") and len(shape) >= 4:
            value = r / np.sqrt(np.prod(shape[1:]))
        elif "edge_importance" in key or key.endswith("weight"):  # weight: of a normalisation
            value = 1 + 0.1 * r
        else:
            value = 0.1 * r
        state[key].set_value(value.astype(np.float32))


def measured_geometry(
    network: ClipNetwork, num_joint: int, num_frame: int, reach: int
) -> tuple[int, int, int]:
    """(receptive field, delay, stride) of a network for one person, in input frames, found by
    changing one frame after the other. num_frame: a multiple of the stride. reach: frames that
    are tried on either side of the middle, more than the receptive field."""
    network.eval()
    shape = (1, num_joint, sum(network.branch_channels), num_frame)
    clip = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    before = score_map_of(network, clip)
    stride = num_frame // before.shape[2]
    middle = before.shape[2] // 2  # output frame
    frames = []  # input frames on which it depends
    for t in range(middle * stride - reach, middle * stride + reach):
        changed = clip.copy()
        changed[..., t] *= -1000
        if (score_map_of(network, changed)[:, :, middle] != before[:, :, middle]).any():
            frames.append(t)
    return frames[-1] - frames[0] + 1, frames[-1] - middle * stride, stride


def score_map_of(network: ClipNetwork, clips: np.ndarray) -> np.ndarray:
    """Clip tensor -> score map (P, num_class, T', V)."""
    with paddle.no_grad():
        return network.extract_feature(paddle.to_tensor(clips))[0].numpy()
