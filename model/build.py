"""Configuration -> network: the only module that combines arguments, graphs and networks.

A network family consists of a file in model/, an argument dataclass in configs/model.py and a row
in FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from paddle import nn

from configs.model import CAUSAL, EfficientGCNArgs, RTSTGCNArgs, STGCNArgs
from configs.schema import Config
from dataset.features import branch_channels
from dataset.graph import adjacency, efficientgcn_adjacency
from dataset.protocols import DataSpec
from dataset.skeletons import Skeleton
from errors import UserError
from model import attention as att
from model.efficientgcn import Block, EfficientGCN, Parts, SpatialGraphLayer
from model.network import ClipNetwork, Shape
from model.rt_stgcn import RTSTGCN, causal
from model.stgcn import STGCN
from model.temporal import TemporalBasic, TemporalBottleneck, TemporalSep, TemporalSG
from model.timing import Timing
from model.weight_init import init_efficientgcn, init_rt_stgcn, init_stgcn

# (arguments, model_type, joint layout, sizes) -> network with random weights.
Builder = Callable[[Any, str, Skeleton, Shape], ClipNetwork]


def build_network(config: Config, spec: DataSpec, persons: int) -> ClipNetwork:
    """The network of a configuration, with random weights. persons: M of its clip tensors.

    Raises UserError where the arguments contradict each other or the joint layout.
    """
    shape = Shape(tuple(branch_channels(config.data.inputs)), persons, spec.num_class)
    build = FAMILIES[type(config.model_args)]
    return build(config.model_args, config.model_type, spec.skeleton, shape)


def build_stgcn(args: STGCNArgs, model_type: str, layout: Skeleton, shape: Shape) -> STGCN:
    """See `Builder`."""
    graph = adjacency(
        layout,
        args.strategy,
        max_hop=args.max_hop,
        dilation=args.dilation,
        true_hops=args.true_hops,
    )
    blocks = [(c, Timing.centred(args.kernel_size, stride)) for c, stride in args.block_args]
    network = STGCN(shape, graph, blocks, args.edge_importance, args.drop_prob)
    init_stgcn(network)
    return network


def build_rt_stgcn(args: RTSTGCNArgs, model_type: str, layout: Skeleton, shape: Shape) -> RTSTGCN:
    """See `Builder`. The adjacency is that of ST-GCN: the public code's own one has entries of up
    to 1000, and no weights were published that need it."""
    network = RTSTGCN(
        shape,
        adjacency(layout, args.strategy, true_hops=True),
        args.in_channel,
        [(c, causal(args.kernel_size, spacing)) for c, spacing in args.block_args],
        args.drop_prob,
        edge_importance=args.edge_importance,
        residual=args.residual,
    )
    init_rt_stgcn(network)
    return network


def build_efficientgcn(
    args: EfficientGCNArgs, model_type: str, layout: Skeleton, shape: Shape
) -> EfficientGCN:
    """See `Builder`. Raises UserError for part attention on a layout without body parts, and for a
    reduct_ratio above the channels of the narrowest block."""
    if args.att_type.removesuffix(CAUSAL) == "pa" and not layout.parts:
        raise UserError(
            f"model_args.att_type is {args.att_type}, but layout {layout.name} has no body parts"
        )
    kernel, max_distance = args.kernel_size
    phi = args.model_types.index(model_type)
    blocks = rescale_blocks(args.block_args, phi, args.scale_args)
    narrowest = min((block.channel for block in blocks), default=args.stem_channel)
    if args.reduct_ratio > narrowest:
        raise UserError(
            f"model_args.reduct_ratio is {args.reduct_ratio}; allowed: 1 to {narrowest}, the "
            "channels of the narrowest block"
        )
    graph = efficientgcn_adjacency(layout, max_distance)
    act, bias, edge = args.act_type, args.bias, args.edge
    make_temporal = TEMPORAL_LAYERS[args.layer_type]

    def attention(channel: int) -> nn.Layer | None:
        if args.att_type == "none":
            return None
        gate = ATTENTIONS[args.att_type](args, channel, layout)
        return att.AttentionLayer(channel, gate, act=act)

    parts = Parts(
        spatial=lambda c_in, c_out: SpatialGraphLayer(c_in, c_out, graph, act, bias, edge),
        stem_temporal=lambda c: TemporalBasic(c, Timing.centred(kernel), act, bias),
        temporal=lambda c, stride: make_temporal(args, c, Timing.centred(kernel, stride)),
        attention=attention,
    )
    network = EfficientGCN(
        shape,
        layout.num_joint,
        stem_channel=args.stem_channel,
        blocks=blocks,
        fusion_stage=args.fusion_stage,
        drop_prob=args.drop_prob,
        parts=parts,
    )
    init_efficientgcn(network)
    return network


FAMILIES: dict[type, Builder] = {
    EfficientGCNArgs: build_efficientgcn,
    STGCNArgs: build_stgcn,
    RTSTGCNArgs: build_rt_stgcn,
}

# Layers of EfficientGCN by their names in configurations.
TEMPORAL_LAYERS: dict[str, Callable[[EfficientGCNArgs, int, Timing], nn.Layer]] = {
    "Basic": lambda a, c, t: TemporalBasic(c, t, a.act_type, a.bias),
    "Bottleneck": lambda a, c, t: TemporalBottleneck(c, t, a.act_type, a.bias, a.reduct_ratio),
    "Sep": lambda a, c, t: TemporalSep(c, t, a.act_type, a.bias, a.expand_ratio),
    "SG": lambda a, c, t: TemporalSG(c, t, a.act_type, a.bias, a.reduct_ratio),
}
ATTENTIONS: dict[str, Callable[[EfficientGCNArgs, int, Skeleton], nn.Layer]] = {
    "stja": lambda a, c, layout: att.STJointAttention(
        c, reduct_ratio=a.reduct_ratio, bias=a.bias, causal=a.causal
    ),
    "pa": lambda a, c, layout: att.PartAttention(
        c, reduct_ratio=a.reduct_ratio, bias=a.bias, parts=layout.parts, causal=a.causal
    ),
    "ca": lambda a, c, layout: att.ChannelAttention(c, causal=a.causal),
    "fa": lambda a, c, layout: att.FrameAttention(),
    "ja": lambda a, c, layout: att.JointAttention(layout.num_joint, causal=a.causal),
}
ATTENTIONS |= {name + CAUSAL: ATTENTIONS[name] for name in ("stja", "pa", "ca", "ja")}


def rescale_blocks(
    block_args: Sequence[tuple[int, int, float]], phi: int, scale_args: Sequence[float]
) -> list[Block]:
    """Blocks scaled by coefficient phi (TPAMI 2022, section 3.5): width * scale_args[0]^phi,
    rounded to a multiple of 16, and depth * scale_args[1]^phi, rounded. Python rounds half to even:
    depth 0.5 becomes 0, width 24 becomes 32."""
    width, depth = (scale**phi for scale in scale_args)
    return [
        Block(max(16 * round(c * width / 16), 16), int(stride), round(d * depth))
        for c, stride, d in block_args
    ]
