"""From plain values to a network: the only place that knows which parts a name stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from paddle import nn

from errors import UserError
from model import attention as att
from model import temporal
from model.efficientgcn import Block, EfficientGCN, Parts, SpatialGraphLayer
from model.stgcn import STGCN
from model.weight_init import init_efficientgcn, init_stgcn


def rescale_blocks(
    block_args: Sequence[Sequence[float]], phi: int, scale_args: Sequence[float]
) -> list[Block]:
    """Block list of scaling coefficient phi (TPAMI 2022, section 3.5): width * scale_args[0]^phi
    to a multiple of 16, depth * scale_args[1]^phi. Python's round, half to even, decides: a depth
    of 0.5 is 0 and a width of 24 is 32."""
    width, depth = (scale**phi for scale in scale_args)
    return [
        Block(max(16 * round(c * width / 16), 16), int(stride), round(d * depth))
        for c, stride, d in block_args
    ]


def efficientgcn(
    phi: int,
    branch_channels: list[int],
    num_class: int,
    adjacency: np.ndarray,
    body_parts: Sequence[Sequence[int]],
    *,
    persons: int,
    stem_channel: int,
    block_args: Sequence[Sequence[float]],
    fusion_stage: int,
    act_type: str,
    att_type: str,
    layer_type: str,
    drop_prob: float,
    window: int,
    scale_args: Sequence[float],
    expand_ratio: int,
    reduct_ratio: int,
    bias: bool,
    edge: bool,
) -> EfficientGCN:
    """adjacency: (K, V, V). body_parts: joints of each part, needed by att_type 'pa'.
    The other names are the configuration's (docs/configs.md)."""
    num_joint = adjacency.shape[1]
    blocks = rescale_blocks(block_args, phi, scale_args)
    narrowest = min((block.channel for block in blocks), default=stem_channel)
    if reduct_ratio > narrowest:
        raise UserError(
            f"model_args.reduct_ratio is {reduct_ratio}; allowed: 1 to {narrowest}, the channels "
            "of the narrowest block"
        )

    def spatial(in_channel: int, out_channel: int) -> nn.Layer:
        return SpatialGraphLayer(
            in_channel, out_channel, adjacency, act=act_type, bias=bias, edge=edge
        )

    def stem_temporal(channel: int) -> nn.Layer:
        return temporal.TemporalBasic(channel, window, 1, act=act_type, bias=bias)

    network = EfficientGCN(
        branch_channels,
        num_joint,
        num_class,
        persons=persons,
        stem_channel=stem_channel,
        blocks=blocks,
        fusion_stage=fusion_stage,
        drop_prob=drop_prob,
        parts=Parts(
            spatial=spatial,
            stem_temporal=stem_temporal,
            temporal=_temporal(layer_type, window, act_type, bias, expand_ratio, reduct_ratio),
            attention=_attention(att_type, act_type, bias, reduct_ratio, num_joint, body_parts),
        ),
    )
    init_efficientgcn(network)
    return network


def _temporal(
    layer_type: str, window: int, act: str, bias: bool, expand_ratio: int, reduct_ratio: int
) -> Callable[[int, int], nn.Layer]:
    table: dict[str, Callable[[int, int], nn.Layer]] = {
        "Basic": lambda c, s: temporal.TemporalBasic(c, window, s, act=act, bias=bias),
        "Bottleneck": lambda c, s: temporal.TemporalBottleneck(
            c, window, s, act=act, bias=bias, reduct_ratio=reduct_ratio
        ),
        "Sep": lambda c, s: temporal.TemporalSep(
            c, window, s, act=act, bias=bias, expand_ratio=expand_ratio
        ),
        "SG": lambda c, s: temporal.TemporalSG(
            c, window, s, act=act, bias=bias, reduct_ratio=reduct_ratio
        ),
    }
    return table[layer_type]


def _attention(
    att_type: str,
    act: str,
    bias: bool,
    reduct_ratio: int,
    num_joint: int,
    body_parts: Sequence[Sequence[int]],
) -> Callable[[int], nn.Layer | None]:
    parts = [list(part) for part in body_parts]
    table: dict[str, Callable[[int], nn.Layer]] = {
        "stja": lambda c: att.STJointAttention(c, reduct_ratio=reduct_ratio, bias=bias),
        "pa": lambda c: att.PartAttention(c, reduct_ratio=reduct_ratio, bias=bias, parts=parts),
        "ca": lambda c: att.ChannelAttention(c),
        "fa": lambda c: att.FrameAttention(),
        "ja": lambda c: att.JointAttention(num_joint),
    }
    if att_type == "none":
        return lambda c: None
    return lambda c: att.AttentionLayer(c, table[att_type](c), act=act)


def stgcn(
    branch_channels: list[int],
    num_class: int,
    adjacency: np.ndarray,
    *,
    persons: int,
    edge_importance: bool,
    drop_prob: float,
    kernel_size: int,
    block_args: Sequence[Sequence[int]],
) -> STGCN:
    """adjacency: (K, V, V). The other names are the configuration's (docs/configs.md)."""
    network = STGCN(
        branch_channels,
        num_class,
        adjacency,
        persons=persons,
        edge_importance=edge_importance,
        drop_prob=drop_prob,
        kernel_size=kernel_size,
        block_args=block_args,
    )
    init_stgcn(network)
    return network
