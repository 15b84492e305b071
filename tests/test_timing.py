"""Temporal geometry: checked by hand, and measured on every network by changing one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from networks import SMALL, efficientgcn, randomise, stgcn

from configs.model import LAYER_TYPES
from model.network import ClipNetwork
from model.timing import Geometry, Timing, compose

FRAMES = 192
BLOCKS = ((8, 1), (16, 2), (16, 1), (16, 2))


def test_by_hand() -> None:
    assert compose([]) == Geometry(receptive_field=1, delay=0, stride=1, tail_margin=1)
    assert compose([Timing.centred(9)]) == Geometry(9, 4, 1, 9)
    # Kernel size 5 adds 4 frames to the receptive field; 3 with stride 2 adds 2 (its stride counts
    # afterwards); 3 with dilation 2 at a total stride of 2 adds 2 * 2 * 2.
    chain = [Timing.centred(5), Timing.centred(3, stride=2), Timing.centred(3, dilation=2)]
    found = compose(chain)
    assert (found.receptive_field, found.delay, found.stride) == (1 + 4 + 2 + 8, 2 + 1 + 4, 2)
    causal = Timing(kernel=9, padding=8)
    assert causal.delay == 0 and compose([causal, causal]) == Geometry(17, 0, 1, 17)
    # Published ST-GCN: ten convolutions with kernel size 9, the fifth and eighth with stride 2.
    published = stgcn().geometry
    assert (published.receptive_field, published.delay) == (1 + 8 * 5 + 16 * 3 + 32 * 2, 76)


NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("EfficientGCN", {"att_type": "none", "layer_type": name}) for name in LAYER_TYPES
]
NETWORKS += [
    ("EfficientGCN", {"att_type": "fa"}),
    ("EfficientGCN", {"att_type": "none", "fusion_stage": 0}),
]
NETWORKS += [("EfficientGCN", {"att_type": "none", "kernel_size": (3, 2)})]
NETWORKS += [("ST-GCN", {"block_args": BLOCKS, "kernel_size": k}) for k in (3, 9)]


@pytest.mark.parametrize(("family", "changes"), NETWORKS, ids=str)
def test_measured(family: str, changes: dict[str, Any]) -> None:
    """Without attention that computes means over all frames: its receptive field is the clip."""
    if family == "ST-GCN":
        network: ClipNetwork = stgcn(persons=1, num_class=5, **changes)
    else:
        network = efficientgcn(persons=1, branches=1, **{**SMALL, **changes})
    randomise(network)
    network.eval()
    geometry, channels = network.geometry, network.branch_channels[0]
    clip = np.random.RandomState(0).standard_normal((1, 25, channels, FRAMES)).astype(np.float32)
    before, middle = score_map(network, clip), FRAMES // 2 // geometry.stride
    centre, span = middle * geometry.stride, geometry.receptive_field + geometry.stride
    frames = []  # that change the output frame in the middle
    for t in range(centre - span, centre + span):
        moved = clip.copy()
        moved[..., t] *= -1000
        if (score_map(network, moved)[:, :, middle] != before[:, :, middle]).any():
            frames.append(t)
    assert max(frames) - centre == geometry.delay
    assert max(frames) - min(frames) + 1 == geometry.receptive_field
    assert before.shape[2] * geometry.stride == FRAMES


def score_map(network: ClipNetwork, clip: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return network.extract_feature(paddle.to_tensor(clip))[0].numpy()
