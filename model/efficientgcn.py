"""EfficientGCN (Song et al., TPAMI 2022, arXiv 2106.15125): one branch per input, fused early.

Sub-layers and parameters are named as in the public Paddle port, so that its weights can be loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import paddle
from paddle import Tensor, nn

from model.attention import AttentionLayer, MeanGate
from model.conv import Conv2D
from model.fold import batch_norm_affine
from model.graph_conv import FoldedGraphConv, graph_conv
from model.layers import ACTIVATIONS, residual
from model.network import Classifier, ClipNetwork, Shape, split_persons
from model.tail import Tail
from model.timing import Timing, timings_of


class Block(NamedTuple):
    """channel: output channels. stride: of its first temporal layer. depth: number of temporal
    layers."""

    channel: int
    stride: int
    depth: int


class Parts(NamedTuple):
    """Factories of the layers that the configuration selects: spatial(in_channel, out_channel),
    stem_temporal(channel), temporal(channel, stride), attention(channel)."""

    spatial: Callable[[int, int], nn.Layer]
    stem_temporal: Callable[[int], nn.Layer]
    temporal: Callable[[int, int], nn.Layer]
    attention: Callable[[int], nn.Layer | None]


class SpatialGraphConv(nn.Layer):
    """Graph convolution with a learnable weight for every edge of every partition.

    adjacency: (K, V, V). edge=False: without edge weights.
    """

    def __init__(
        self, in_channel: int, out_channel: int, adjacency: np.ndarray, *, bias: bool, edge: bool
    ) -> None:
        super().__init__()
        num_partition = adjacency.shape[0]
        self.gcn = Conv2D(in_channel, out_channel * num_partition, 1, bias_attr=bias)
        self.register_buffer("A", paddle.to_tensor(adjacency, dtype="float32"))
        self.edge = None
        if edge:
            ones = nn.initializer.Constant(1.0)
            self.edge = self.create_parameter(list(adjacency.shape), default_initializer=ones)

    def adjacency(self) -> Tensor:
        """(K, V, V), multiplied by the edge weights."""
        return self.A if self.edge is None else self.A * self.edge

    def forward(self, x: Tensor) -> Tensor:
        return graph_conv(x, self.adjacency(), self.gcn.weight, self.gcn.bias)


class SpatialGraphLayer(nn.Layer):
    """act(BN(graph convolution) + residual), (P, C, T, V) -> (P, C', T, V)."""

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        adjacency: np.ndarray,
        act: str,
        bias: bool,
        edge: bool,
    ) -> None:
        super().__init__()
        self.conv = SpatialGraphConv(in_channel, out_channel, adjacency, bias=bias, edge=edge)
        self.bn = nn.BatchNorm2D(out_channel)
        self.residual = residual(in_channel, out_channel, bias=bias)
        self.act = ACTIVATIONS[act]()

    def fold(self) -> None:
        """Fold the convolution and its BatchNorm into constants (model/fold.py)."""
        gcn, affine = self.conv.gcn, batch_norm_affine(self.bn)
        folded = FoldedGraphConv(self.conv.adjacency(), gcn.weight, gcn.bias, *affine)
        self.add_sublayer("conv", folded)
        self.add_sublayer("bn", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + self.residual(x))


def _block_layers(blocks: list[Block], in_channel: int, parts: Parts) -> list[tuple[str, nn.Layer]]:
    """Named layers of consecutive blocks, in order."""
    layers: list[tuple[str, nn.Layer]] = []
    for j, (channel, stride, depth) in enumerate(blocks):
        layers.append((f"block-{j}_scn", parts.spatial(in_channel, channel)))
        for k in range(depth):
            layers.append((f"block-{j}_tcn-{k}", parts.temporal(channel, stride if k == 0 else 1)))
        attention = parts.attention(channel)
        if attention is not None:
            layers.append((f"block-{j}_att", attention))
        in_channel = channel
    return layers


def run_layers(branch: nn.Layer, x: Tensor, tail: Tail | None) -> tuple[Tensor, Tail | None]:
    """Run the layers of a Sequential in order, and carry the tail of truncated clips along."""
    for layer in branch.children():
        x = layer(x, tail) if isinstance(layer, AttentionLayer) else layer(x)
        tail = tail and tail.through(timings_of([layer]))
    return x, tail


class EfficientGCN(ClipNetwork):
    """blocks: scaled by the model size. fusion_stage: number of blocks in every input branch; the
    remaining blocks process the concatenation of the branches."""

    classifier_name = "classifier"

    def __init__(
        self,
        shape: Shape,
        num_joint: int,
        *,
        stem_channel: int,
        blocks: list[Block],
        fusion_stage: int,
        drop_prob: float,
        parts: Parts,
    ) -> None:
        super().__init__(shape)
        self.num_joint = num_joint
        self.input_branches = nn.LayerList()
        for channel in shape.branch_channels:
            stem = [
                ("init_bn", nn.BatchNorm2D(channel)),
                ("stem_scn", parts.spatial(channel, stem_channel)),
                ("stem_tcn", parts.stem_temporal(stem_channel)),
            ]
            early = _block_layers(blocks[:fusion_stage], stem_channel, parts)
            self.input_branches.append(nn.Sequential(*stem, *early))
        early_channel = blocks[fusion_stage - 1].channel if fusion_stage else stem_channel
        fused = early_channel * len(shape.branch_channels)
        late = blocks[fusion_stage:]
        self.main_stream = nn.Sequential(*_block_layers(late, fused, parts))
        out_channel = late[-1].channel if late else fused
        self.classifier = Classifier(out_channel, shape.num_class, drop_prob)

    @property
    def checkpoint_shapes(self) -> dict[str, list[int]]:
        """Other shapes that parameters may have in a checkpoint: the public port's classifier is a
        3-D convolution, whose weight has one more trailing axis of size 1."""
        return {"classifier.fc.weight": [*self.classifier.fc.weight.shape, 1]}

    @property
    def timings(self) -> tuple[Timing, ...]:
        return timings_of([*self.input_branches[0], *self.main_stream])  # all branches are equal

    @property
    def truncates(self) -> bool:
        """False with causal attention: a cumulative mean changes within a constant tail."""
        return not any(isinstance(s, MeanGate) and s.causal for s in self.sublayers())

    def trunk(self, clips: Tensor, tail: Tail | None) -> Tensor:
        x = split_persons(clips, self.num_joint)  # (P, I*C, T, V)
        branches = paddle.split(x, self.branch_channels, axis=1)
        early = [run_layers(layers, b, tail) for layers, b in zip(self.input_branches, branches)]
        x = paddle.concat([branch for branch, _ in early], axis=1)
        return run_layers(self.main_stream, x, early[0][1])[0]

    def head(self, feature: Tensor) -> Tensor:
        return self.classifier(feature)
