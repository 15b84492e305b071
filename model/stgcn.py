"""ST-GCN (Yan et al., AAAI 2018) in the 4-D form of st-gcn_4d: same weights, same logits, but the
input is (N, M*V, C, T) and joints are mixed by matmul. Parameter names are those of the original
(torch's running_mean is Paddle's _mean). Several input branches are fused by concatenation on
channels, before the first BatchNorm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from model.conv import Conv2D, conv_then_norm
from model.fold import Affine, batch_norm_affine
from model.graph_conv import FoldedGraphConv, graph_conv
from model.head import cut_tail, mean_over_persons, split_persons
from model.layers import conv_norm
from model.tail import Tail, tail_margin


class GraphConv(nn.Layer):
    """Holds the weights of one graph convolution; the adjacency comes with the call."""

    def __init__(self, in_channel: int, out_channel: int, num_partition: int) -> None:
        super().__init__()
        self.conv = Conv2D(in_channel, out_channel * num_partition, 1)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """(P, C, T, V), (K, V, V) -> (P, C', T, V)."""
        return graph_conv(x, adjacency, self.conv.weight, self.conv.bias)


class STGCNBlock(nn.Layer):
    """Graph convolution, then convolution over time, with a way around.

    (P, C, T, V), (K, V, V) -> (P, C', ceil(T / stride), V).
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        num_partition: int,
        *,
        kernel_size: int,
        stride: int,
        drop_prob: float,
        first: bool,
    ) -> None:
        super().__init__()
        self.gcn = GraphConv(in_channel, out_channel, num_partition)
        pad = (kernel_size - 1) // 2
        self.tcn = nn.Sequential(
            nn.BatchNorm2D(out_channel),
            nn.ReLU(),
            Conv2D(out_channel, out_channel, (kernel_size, 1), (stride, 1), (pad, 0)),
            nn.BatchNorm2D(out_channel),
            nn.Dropout(drop_prob),
        )
        self.residual = None  # the first block has no way around
        if not first and in_channel == out_channel and stride == 1:
            self.residual = nn.Identity()
        elif not first:
            self.residual = conv_norm(in_channel, out_channel, stride=stride)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        y = self.tcn[1](self.tcn[0](self.gcn(x, adjacency)))
        y = self.tcn[4](conv_then_norm(y, self.tcn[2], self.tcn[3]))
        return nn.functional.relu(y if self.residual is None else y + self.residual(x))


class STGCN(nn.Layer):
    """adjacency: (K, V, V). edge_importance: learn a weight on every edge, in every block.
    persons: M of a clip tensor; 1 gives logits per person. block_args: output channels and stride
    over time of each block.
    """

    def __init__(
        self,
        branch_channels: list[int],
        num_class: int,
        adjacency: np.ndarray,
        *,
        persons: int,
        edge_importance: bool,
        drop_prob: float,
        kernel_size: int,
        block_args: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        num_partition, self.num_joint, _ = adjacency.shape
        self.persons = persons
        channel = sum(branch_channels)
        self.register_buffer("A", paddle.to_tensor(adjacency, dtype="float32"))
        self.data_bn = nn.BatchNorm2D(self.num_joint * channel)
        self.st_gcn_networks = nn.LayerList()
        for index, (out_channel, stride) in enumerate(block_args):
            self.st_gcn_networks.append(
                STGCNBlock(
                    channel,
                    out_channel,
                    num_partition,
                    kernel_size=kernel_size,
                    stride=stride,
                    drop_prob=0.0 if index == 0 else drop_prob,
                    first=index == 0,
                )
            )
            channel = out_channel
        self.edge_importance = nn.ParameterList()
        if edge_importance:
            ones = nn.initializer.Constant(1.0)
            for _ in block_args:
                weight = self.create_parameter(list(adjacency.shape), default_initializer=ones)
                self.edge_importance.append(weight)
        self.fcn = Conv2D(channel, num_class, 1)
        self.num_class = num_class

    def _adjacencies(self) -> list[Tensor]:
        """(K, V, V) of each block, with its edge importance in it."""
        weights = list(self.edge_importance)
        return [self.A * w for w in weights] if weights else [self.A] * len(self.st_gcn_networks)

    def fold(self) -> None:
        """Make constants of the graph convolutions and their BatchNorms (see model/fold.py)."""
        for block, adjacency in zip(self.st_gcn_networks, self._adjacencies()):
            conv, norm = block.gcn.conv, block.tcn[0]
            affine = batch_norm_affine(norm)
            block.gcn = FoldedGraphConv(adjacency, conv.weight, conv.bias, *affine)
            block.tcn[0] = nn.Identity()
        self.edge_importance = nn.ParameterList()  # in the folded convolutions now
        self.data_bn = Affine(*batch_norm_affine(self.data_bn))

    def _trunk(self, clips: Tensor) -> Tensor:
        """(N, M*V, C, T) -> (P, C', T', V)."""
        v, c = self.num_joint, clips.shape[2]
        x = clips.reshape([-1, v * c, 1, 0])  # (P, V*C, 1, T), V slow: one statistic a joint
        x = self.data_bn(x).reshape([-1, v, c, 0])  # (P, V, C, T)
        x = split_persons(x, v)  # (P, C, T, V)
        for block, adjacency in zip(self.st_gcn_networks, self._adjacencies()):
            x = block(x, adjacency)
        return x

    def tail_margin(self) -> tuple[int, int]:
        """(frames, stride) that a clip with a constant tail may be cut to; see model/tail.py."""
        blocks = list(self.st_gcn_networks)
        return tail_margin(blocks, [False] * len(blocks))

    def forward(self, clips: Tensor, cut: Tensor | None = None) -> Tensor:
        """(N, M*V, C, T) -> logits (N, num_class). cut: see model/tail.py, (N, 1, 1, 1)."""
        tail = cut_tail(cut, self.persons)
        for block in self.st_gcn_networks:
            tail = tail and tail.after(block)
        return self._classify(self._trunk(clips), tail)

    def _classify(self, feature: Tensor, tail: Tail | None = None) -> Tensor:
        pooled = mean_over_persons(feature, self.persons, tail)  # (N, C', 1, 1)
        return self.fcn(pooled).reshape([-1, self.num_class])

    def extract_feature(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M*V, C, T) -> score map (P, num_class, T', V), feature (P, C', T', V)."""
        feature = self._trunk(clips)
        return self.fcn(feature), feature

    def with_feature(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """(N, M*V, C, T) -> logits (N, num_class), feature (P, C', T', V), in one pass."""
        feature = self._trunk(clips)
        return self._classify(feature), feature
