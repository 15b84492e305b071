"""ST-GCN (Yan et al., AAAI 2018) in the 4-D form of st-gcn_4d: same weights, same logits, but the
input is (N, M*V, C, T) and joints are aggregated by matmul.

Parameters are named as in the original (torch's running_mean is Paddle's _mean). Input branches are
concatenated on the channel axis, before the first BatchNorm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from model.conv import Conv2D, conv_then_norm
from model.fold import batch_norm_affine
from model.graph_conv import FoldedGraphConv, graph_conv
from model.layers import residual, temporal_conv
from model.network import ClipNetwork, Shape, split_persons
from model.tail import Tail
from model.timing import Timing, timings_of


class GraphConv(nn.Layer):
    """Graph convolution; the adjacency is an argument of the call."""

    def __init__(self, in_channel: int, out_channel: int, num_partition: int) -> None:
        super().__init__()
        self.conv = Conv2D(in_channel, out_channel * num_partition, 1)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """(P, C, T, V), (K, V, V) -> (P, C', T, V)."""
        return graph_conv(x, adjacency, self.conv.weight, self.conv.bias)


class STGCNBlock(nn.Layer):
    """Graph convolution, then convolution over time, with a residual connection.

    (P, C, T, V), (K, V, V) -> (P, C', ceil(T / stride), V). first: no residual connection.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        num_partition: int,
        timing: Timing,
        drop_prob: float,
        *,
        first: bool,
    ) -> None:
        super().__init__()
        self.timings = (timing,)
        self.gcn = GraphConv(in_channel, out_channel, num_partition)
        self.tcn = nn.Sequential(
            nn.BatchNorm2D(out_channel),
            nn.ReLU(),
            temporal_conv(out_channel, out_channel, timing),
            nn.BatchNorm2D(out_channel),
            nn.Dropout(drop_prob),
        )
        self.residual = None if first else residual(in_channel, out_channel, timing.stride)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        y = self.tcn[1](self.tcn[0](self.gcn(x, adjacency)))
        y = self.tcn[4](conv_then_norm(y, self.tcn[2], self.tcn[3]))
        return nn.functional.relu(y if self.residual is None else y + self.residual(x))


class STGCN(ClipNetwork):
    """adjacency: (K, V, V). blocks: output channels and convolution over time. edge_importance:
    learn a weight for every edge, in every block."""

    classifier_name = "fcn"

    def __init__(
        self,
        shape: Shape,
        adjacency: np.ndarray,
        blocks: Sequence[tuple[int, Timing]],
        edge_importance: bool,
        drop_prob: float,
    ) -> None:
        super().__init__(shape)
        num_partition, self.num_joint, _ = adjacency.shape
        channel = sum(shape.branch_channels)
        self.register_buffer("A", paddle.to_tensor(adjacency, dtype="float32"))
        self.data_bn = nn.BatchNorm2D(self.num_joint * channel)
        self.st_gcn_networks = nn.LayerList()
        for index, (out_channel, timing) in enumerate(blocks):
            first, drop = index == 0, drop_prob if index else 0.0
            block = STGCNBlock(channel, out_channel, num_partition, timing, drop, first=first)
            self.st_gcn_networks.append(block)
            channel = out_channel
        ones = nn.initializer.Constant(1.0)
        self.edge_importance = nn.ParameterList(
            self.create_parameter(list(adjacency.shape), default_initializer=ones)
            for _ in range(len(blocks) if edge_importance else 0)
        )
        self.fcn = Conv2D(channel, shape.num_class, 1)

    def adjacencies(self) -> list[Tensor]:
        """(K, V, V) of each block, multiplied by its edge importance."""
        weights = list(self.edge_importance)
        return [self.A * w for w in weights] if weights else [self.A] * len(self.st_gcn_networks)

    def fold(self) -> None:
        """Fold graph convolutions and their BatchNorms into constants (model/fold.py)."""
        for block, adjacency in zip(self.st_gcn_networks, self.adjacencies()):
            conv, norm = block.gcn.conv, block.tcn[0]
            affine = batch_norm_affine(norm)
            block.gcn = FoldedGraphConv(adjacency, conv.weight, conv.bias, *affine)
            block.tcn[0] = nn.Identity()
        self.edge_importance = nn.ParameterList()  # folded into the convolutions

    @property
    def timings(self) -> tuple[Timing, ...]:
        return timings_of(self.st_gcn_networks)

    def normalised(self, clips: Tensor) -> Tensor:
        """Clip tensor -> input of the first block, (P, C, T, V)."""
        v, c = self.num_joint, clips.shape[2]
        x = clips.reshape([-1, v * c, 1, 0])  # (P, V*C, 1, T), V slow: one statistic per joint
        return split_persons(self.data_bn(x).reshape([-1, v, c, 0]), v)

    def trunk(self, clips: Tensor, tail: Tail | None) -> Tensor:
        x = self.normalised(clips)
        for block, adjacency in zip(self.st_gcn_networks, self.adjacencies()):
            x = block(x, adjacency)
        return x

    def head(self, feature: Tensor) -> Tensor:
        return self.fcn(feature)
