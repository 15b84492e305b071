"""EfficientGCN (SG layers, ST-JointAtt, swish) and ST-GCN in PyTorch, for bench_training.py.

Written as in the papers' code: convolution to K*C' channels, then a 5-D einsum with the adjacency.
Sub-layers, input and output are those of our networks, so that `load_ours` can load their weights:
(N, M*V, I*C, T) -> (N, num_class).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn


def load_ours(network: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Load the state of our network with the same settings into a PyTorch network, by name."""
    renamed = {
        name.replace("._mean", ".running_mean").replace("._variance", ".running_var"): value
        for name, value in weights.items()
    }
    counters = {n: v for n, v in network.state_dict().items() if n.endswith("num_batches_tracked")}
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in renamed.items()}
    network.load_state_dict({**tensors, **counters})


def split_persons(clips: Tensor, num_joint: int) -> Tensor:
    """(N, M*V, C, T) -> (P, C, T, V)."""
    _, _, c, t = clips.shape
    return clips.reshape(-1, num_joint, c, t).permute(0, 2, 3, 1).contiguous()


def plain_graph_conv(conv: nn.Conv2d, x: Tensor, graph: Tensor) -> Tensor:
    """(P, C, T, V), (K, V, V) -> (P, C', T, V)."""
    y = conv(x)
    p, kc, t, v = y.shape
    k = len(graph)
    return torch.einsum("nkctv,kvw->nctw", y.view(p, k, kc // k, t, v), graph)


def conv_norm(
    in_channel: int, channel: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    pad = ((kernel - 1) // 2, 0)
    conv = nn.Conv2d(in_channel, channel, (kernel, 1), (stride, 1), pad, groups=groups)
    return nn.Sequential(conv, nn.BatchNorm2d(channel))


class SpatialConv(nn.Module):
    def __init__(self, in_channel: int, channel: int, graph: Tensor) -> None:
        super().__init__()
        self.gcn = nn.Conv2d(in_channel, channel * len(graph), 1)
        self.register_buffer("A", graph.clone())
        self.edge = nn.Parameter(torch.ones_like(graph))

    def forward(self, x: Tensor) -> Tensor:
        return plain_graph_conv(self.gcn, x, self.A * self.edge)


class SpatialLayer(nn.Module):
    def __init__(self, in_channel: int, channel: int, graph: Tensor) -> None:
        super().__init__()
        self.conv = SpatialConv(in_channel, channel, graph)
        self.bn = nn.BatchNorm2d(channel)
        same = in_channel == channel
        self.residual = nn.Identity() if same else conv_norm(in_channel, channel)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + self.residual(x))


class TemporalBasic(nn.Module):
    def __init__(self, channel: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channel, channel, (kernel, 1), padding=((kernel - 1) // 2, 0))
        self.bn = nn.BatchNorm2d(channel)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + x)


class TemporalSG(nn.Module):
    def __init__(self, channel: int, kernel: int, stride: int, reduct_ratio: int) -> None:
        super().__init__()
        inner = channel // reduct_ratio
        self.depth_conv1 = conv_norm(channel, channel, kernel, groups=channel)
        self.point_conv1 = conv_norm(channel, inner)
        self.point_conv2 = conv_norm(inner, channel)
        self.depth_conv2 = conv_norm(channel, channel, kernel, stride, channel)
        self.residual = nn.Identity() if stride == 1 else conv_norm(channel, channel, 1, stride)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.point_conv1(self.act(self.depth_conv1(x)))
        return self.depth_conv2(self.act(self.point_conv2(inner))) + self.residual(x)


class JointAttention(nn.Module):
    def __init__(self, channel: int, reduct_ratio: int) -> None:
        super().__init__()
        inner = channel // reduct_ratio
        self.fcn = conv_norm(channel, inner)
        self.conv_t = nn.Conv2d(inner, channel, 1)
        self.conv_v = nn.Conv2d(inner, channel, 1)
        self.act = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        _, _, t, v = x.shape
        over_time = x.mean(3, keepdim=True)
        over_joints = x.mean(2, keepdim=True).transpose(2, 3)
        both = self.act(self.fcn(torch.cat([over_time, over_joints], dim=2)))
        over_time, over_joints = torch.split(both, [t, v], dim=2)
        return self.conv_t(over_time).sigmoid() * self.conv_v(over_joints.transpose(2, 3)).sigmoid()


class AttentionLayer(nn.Module):
    def __init__(self, channel: int, reduct_ratio: int) -> None:
        super().__init__()
        self.att = JointAttention(channel, reduct_ratio)
        self.bn = nn.BatchNorm2d(channel)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x * self.att(x)) + x)


class Classifier(nn.Module):
    def __init__(self, channel: int, num_class: int, drop_prob: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(drop_prob)
        self.fc = nn.Conv2d(channel, num_class, 1)

    def forward(self, feature: Tensor, persons: int) -> Tensor:
        """(P, C, T, V) -> (N, num_class)."""
        c = feature.shape[1]
        pooled = feature.mean((2, 3)).view(-1, persons, c).mean(1)
        return self.fc(self.dropout(pooled[:, :, None, None])).flatten(1)


class EfficientGCN(nn.Module):
    """blocks: (channels, stride, depth), scaled. graph: (K, V, V)."""

    def __init__(
        self,
        branch_channels: Sequence[int],
        num_class: int,
        graph: np.ndarray,
        *,
        persons: int,
        stem_channel: int,
        blocks: Sequence[tuple[int, int, int]],
        fusion_stage: int,
        drop_prob: float,
        kernel: int,
        reduct_ratio: int,
    ) -> None:
        super().__init__()
        self.branch_channels, self.persons = list(branch_channels), persons
        self.num_joint = graph.shape[1]
        tensor = torch.from_numpy(graph).float()

        def add_blocks(part: nn.Sequential, first: int, last: int, channel: int) -> int:
            for j, (width, stride, depth) in enumerate(blocks[first:last]):
                part.add_module(f"block-{j}_scn", SpatialLayer(channel, width, tensor))
                for k in range(depth):
                    layer = TemporalSG(width, kernel, stride if k == 0 else 1, reduct_ratio)
                    part.add_module(f"block-{j}_tcn-{k}", layer)
                part.add_module(f"block-{j}_att", AttentionLayer(width, reduct_ratio))
                channel = width
            return channel

        self.input_branches = nn.ModuleList()
        early = 0
        for channel in branch_channels:
            branch = nn.Sequential()
            branch.add_module("init_bn", nn.BatchNorm2d(channel))
            branch.add_module("stem_scn", SpatialLayer(channel, stem_channel, tensor))
            branch.add_module("stem_tcn", TemporalBasic(stem_channel, kernel))
            early += add_blocks(branch, 0, fusion_stage, stem_channel)
            self.input_branches.append(branch)
        self.main_stream = nn.Sequential()
        width = add_blocks(self.main_stream, fusion_stage, len(blocks), early)
        self.classifier = Classifier(width, num_class, drop_prob)

    def forward(self, clips: Tensor) -> Tensor:
        parts = split_persons(clips, self.num_joint).split(self.branch_channels, dim=1)
        fused = torch.cat([f(x) for f, x in zip(self.input_branches, parts)], dim=1)
        return self.classifier(self.main_stream(fused), self.persons)


class GraphConv(nn.Module):
    def __init__(self, in_channel: int, channel: int, num_partition: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channel, channel * num_partition, 1)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return plain_graph_conv(self.conv, x, graph)


class STGCNBlock(nn.Module):
    def __init__(
        self,
        in_channel: int,
        channel: int,
        num_partition: int,
        *,
        kernel_size: int,
        stride: int,
        drop_prob: float,
        first: bool,
    ) -> None:
        super().__init__()
        self.gcn = GraphConv(in_channel, channel, num_partition)
        pad = ((kernel_size - 1) // 2, 0)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(channel),
            nn.ReLU(inplace=True),
            nn.Conv2d(channel, channel, (kernel_size, 1), (stride, 1), pad),
            nn.BatchNorm2d(channel),
            nn.Dropout(drop_prob, inplace=True),
        )
        self.residual = None
        if not first and in_channel == channel and stride == 1:
            self.residual = nn.Identity()
        elif not first:
            self.residual = conv_norm(in_channel, channel, 1, stride)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        y = self.tcn(self.gcn(x, graph))
        return torch.relu(y if self.residual is None else y + self.residual(x))


class STGCN(nn.Module):
    """blocks: (channels, stride). graph: (K, V, V)."""

    def __init__(
        self,
        channel: int,
        num_class: int,
        graph: np.ndarray,
        *,
        persons: int,
        drop_prob: float,
        kernel_size: int,
        blocks: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        num_partition, self.num_joint, _ = graph.shape
        self.persons = persons
        self.register_buffer("A", torch.from_numpy(graph).float())
        self.data_bn = nn.BatchNorm1d(self.num_joint * channel)
        self.st_gcn_networks = nn.ModuleList()
        for index, (width, stride) in enumerate(blocks):
            self.st_gcn_networks.append(
                STGCNBlock(
                    channel,
                    width,
                    num_partition,
                    kernel_size=kernel_size,
                    stride=stride,
                    drop_prob=drop_prob if index else 0.0,
                    first=index == 0,
                )
            )
            channel = width
        self.edge_importance = nn.ParameterList(
            [nn.Parameter(torch.ones_like(self.A)) for _ in blocks]
        )
        self.fcn = nn.Conv2d(channel, num_class, 1)

    def forward(self, clips: Tensor) -> Tensor:
        n, mv, c, t = clips.shape
        p, v = n * self.persons, mv // self.persons
        x = self.data_bn(clips.reshape(p, v * c, t)).view(p, v, c, t)
        x = x.permute(0, 2, 3, 1).contiguous()
        for block, importance in zip(self.st_gcn_networks, self.edge_importance):
            x = block(x, self.A * importance)
        pooled = x.mean((2, 3)).view(n, self.persons, -1).mean(1)
        return self.fcn(pooled[:, :, None, None]).flatten(1)
