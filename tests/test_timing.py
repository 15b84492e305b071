"""Temporal geometry: by hand, and measured on every network by changing one frame."""

from __future__ import annotations

from typing import Any

import pytest

from configs.model import LAYER_TYPES
from model.network import ClipNetwork
from model.timing import Geometry, Timing, compose
from tests.networks import SMALL, efficientgcn, measured_geometry, randomise, rt_stgcn, stgcn

BLOCKS = ((8, 1), (16, 2), (16, 1), (16, 2))


def test_by_hand() -> None:
    assert compose([]) == Geometry(receptive_field=1, delay=0, stride=1, tail_margin=1)
    assert compose([Timing.centred(9)]) == Geometry(9, 4, 1, 9)
    # Kernel 5 adds 4 frames to the first; kernel 3 behind it adds 2; kernel 3 with dilation 2,
    # behind a stride of 2, adds 2 * 2 * 2.
    chain = [Timing.centred(5), Timing.centred(3, stride=2), Timing.centred(3, dilation=2)]
    found = compose(chain)
    assert (found.receptive_field, found.delay, found.stride) == (1 + 4 + 2 + 8, 2 + 1 + 4, 2)
    causal = Timing(kernel=9, padding=8)
    assert causal.delay == 0 and compose([causal, causal]) == Geometry(17, 0, 1, 17)
    # Published ST-GCN: ten convolutions with kernel size 9, the fifth and eighth with stride 2.
    published = stgcn().geometry
    assert (published.receptive_field, published.delay) == (1 + 8 * 5 + 16 * 3 + 32 * 2, 76)


# Attention that takes means over all frames has no receptive field, so it is left out.
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *(("EfficientGCN", {"att_type": "none", "layer_type": name}) for name in LAYER_TYPES),
    ("EfficientGCN", {"att_type": "fa"}),
    ("EfficientGCN", {"att_type": "none", "fusion_stage": 0}),
    ("EfficientGCN", {"att_type": "none", "kernel_size": (3, 2)}),
]
NETWORKS += [("ST-GCN", {"block_args": BLOCKS, "kernel_size": k}) for k in (3, 9)]
NETWORKS += [("RT-ST-GCN", {"block_args": BLOCKS, "kernel_size": k}) for k in (1, 4, 9)]


@pytest.mark.parametrize(("family", "changes"), NETWORKS, ids=str)
def test_measured(family: str, changes: dict[str, Any]) -> None:
    network: ClipNetwork
    if family == "ST-GCN":
        network = stgcn(persons=1, num_class=5, **changes)
    elif family == "RT-ST-GCN":
        network = rt_stgcn(persons=1, num_class=5, **changes)
    else:
        network = efficientgcn(persons=1, branches=1, **{**SMALL, **changes})
    randomise(network)
    geometry = network.geometry
    reach = geometry.receptive_field + geometry.stride
    found = measured_geometry(network, 25, num_frame=192, reach=reach)
    assert found == (geometry.receptive_field, geometry.delay, geometry.stride)
