"""EfficientGCN (SG layers, ST-JointAtt, swish) and ST-GCN in PyTorch, for bench_training.py.

Written as in the papers' code: convolution to K*C' channels, then a 5-D einsum with the adjacency.
Sub-layers, input and output are those of our networks, so that `load_ours` can load their weights:
(N, M*V, I*C, T) -> (N, num_class).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Start
from configs.model import EfficientGCNArgs, STGCNArgs


def load_ours(network: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Load the state of our network with the same settings into a PyTorch network, by name."""
    state = {n: v for n, v in network.state_dict().items() if n.endswith("num_batches_tracked")}
    for name, value in weights.items():
        renamed = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        state[renamed] = torch.from_numpy(value)
    network.load_state_dict(state)


def split_persons(clips: Tensor, num_joint: int) -> Tensor:
    """(N, M*V, C, T) -> (P, C, T, V)."""
    _, _, c, t = clips.shape
    return clips.reshape(-1, num_joint, c, t).permute(0, 2, 3, 1).contiguous()


def mean_over_persons(feature: Tensor, persons: int) -> Tensor:
    """Mean over T, V and the M persons of each clip, (P, C, T, V) -> (N, C, 1, 1)."""
    return feature.mean((2, 3)).view(-1, persons, feature.shape[1], 1, 1).mean(1)


def plain_graph_conv(conv: nn.Module, x: Tensor, graph: Tensor) -> Tensor:
    """(P, C, T, V), (K, V, V) -> (P, C', T, V)."""
    y = conv(x)
    p, kc, t, v = y.shape
    k = len(graph)
    return torch.einsum("nkctv,kvw->nctw", y.view(p, k, kc // k, t, v), graph)


def temporal_conv(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    pad = ((kernel - 1) // 2, 0)
    return nn.Conv2d(c_in, c_out, (kernel, 1), (stride, 1), pad, groups=groups)


def conv_norm(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = temporal_conv(c_in, c_out, kernel, stride, groups)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


def residual(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    same = c_in == c_out and stride == 1
    return nn.Identity() if same else conv_norm(c_in, c_out, 1, stride)


class SpatialConv(nn.Module):
    def __init__(self, c_in: int, c_out: int, graph: Tensor) -> None:
        super().__init__()
        self.gcn = nn.Conv2d(c_in, c_out * len(graph), 1)
        self.register_buffer("A", graph.clone())
        self.edge = nn.Parameter(torch.ones_like(graph))

    def forward(self, x: Tensor) -> Tensor:
        return plain_graph_conv(self.gcn, x, self.A * self.edge)


class ResidualConv(nn.Module):
    """act(BN(conv) + residual)."""

    def __init__(self, c_in: int, c_out: int, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(c_out)
        self.residual = residual(c_in, c_out)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + self.residual(x))


class TemporalSG(nn.Module):
    def __init__(self, channel: int, kernel: int, stride: int, reduct_ratio: int) -> None:
        super().__init__()
        inner = channel // reduct_ratio
        self.depth_conv1 = conv_norm(channel, channel, kernel, groups=channel)
        self.point_conv1 = conv_norm(channel, inner)
        self.point_conv2 = conv_norm(inner, channel)
        self.depth_conv2 = conv_norm(channel, channel, kernel, stride, channel)
        self.residual = residual(channel, channel, stride)
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


class EfficientGCN(nn.Module):
    def __init__(self, args: EfficientGCNArgs, persons: int, start: Start) -> None:
        super().__init__()
        self.branch_channels, self.persons = start.channels, persons
        graph = torch.from_numpy(start.weights["input_branches.0.stem_scn.conv.A"])
        self.num_joint = graph.shape[1]
        kernel = args.kernel_size[0]

        def spatial(c_in: int, c_out: int) -> ResidualConv:
            return ResidualConv(c_in, c_out, SpatialConv(c_in, c_out, graph))

        def add_blocks(part: nn.Sequential, first: int, last: int, channel: int) -> int:
            for j, (width, stride, depth) in enumerate(start.blocks[first:last]):
                part.add_module(f"block-{j}_scn", spatial(channel, width))
                for k in range(depth):
                    layer = TemporalSG(width, kernel, stride if k == 0 else 1, args.reduct_ratio)
                    part.add_module(f"block-{j}_tcn-{k}", layer)
                part.add_module(f"block-{j}_att", AttentionLayer(width, args.reduct_ratio))
                channel = width
            return channel

        self.input_branches = nn.ModuleList()
        early, stem = 0, args.stem_channel
        for channel in start.channels:
            branch = nn.Sequential()
            branch.add_module("init_bn", nn.BatchNorm2d(channel))
            branch.add_module("stem_scn", spatial(channel, stem))
            stem_tcn = ResidualConv(stem, stem, temporal_conv(stem, stem, kernel))
            branch.add_module("stem_tcn", stem_tcn)
            early += add_blocks(branch, 0, args.fusion_stage, stem)
            self.input_branches.append(branch)
        self.main_stream = nn.Sequential()
        width = add_blocks(self.main_stream, args.fusion_stage, len(start.blocks), early)
        fc = nn.Conv2d(width, len(start.weights["classifier.fc.bias"]), 1)
        self.classifier = nn.Sequential(OrderedDict(dropout=nn.Dropout(args.drop_prob), fc=fc))

    def forward(self, clips: Tensor) -> Tensor:
        parts = split_persons(clips, self.num_joint).split(self.branch_channels, dim=1)
        fused = torch.cat([f(x) for f, x in zip(self.input_branches, parts)], dim=1)
        pooled = mean_over_persons(self.main_stream(fused), self.persons)
        return self.classifier(pooled).flatten(1)


class STGCNBlock(nn.Module):
    """first: no residual connection."""

    def __init__(
        self, c_in: int, c_out: int, k: int, kernel: int, stride: int, drop_prob: float, first: bool
    ) -> None:
        super().__init__()
        self.gcn = nn.ModuleDict({"conv": nn.Conv2d(c_in, c_out * k, 1)})
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            temporal_conv(c_out, c_out, kernel, stride),
            nn.BatchNorm2d(c_out),
            nn.Dropout(drop_prob, inplace=True),
        )
        self.residual = None if first else residual(c_in, c_out, stride)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        y = self.tcn(plain_graph_conv(self.gcn["conv"], x, graph))
        return torch.relu(y if self.residual is None else y + self.residual(x))


class STGCN(nn.Module):
    def __init__(self, args: STGCNArgs, persons: int, start: Start) -> None:
        super().__init__()
        self.persons, channel = persons, sum(start.channels)
        self.register_buffer("A", torch.from_numpy(start.weights["A"]))
        k, v, _ = self.A.shape
        self.data_bn = nn.BatchNorm1d(v * channel)
        self.st_gcn_networks, self.edge_importance = nn.ModuleList(), nn.ParameterList()
        for index, (width, stride) in enumerate(start.blocks):
            first, kernel = index == 0, args.kernel_size
            drop_prob = 0.0 if first else args.drop_prob
            block = STGCNBlock(channel, width, k, kernel, stride, drop_prob, first)
            self.st_gcn_networks.append(block)
            self.edge_importance.append(nn.Parameter(torch.ones_like(self.A)))
            channel = width
        self.fcn = nn.Conv2d(channel, len(start.weights["fcn.bias"]), 1)

    def forward(self, clips: Tensor) -> Tensor:
        n, mv, c, t = clips.shape
        p, v = n * self.persons, mv // self.persons
        x = self.data_bn(clips.reshape(p, v * c, t)).view(n, mv, c, t)
        x = split_persons(x, v)
        for block, importance in zip(self.st_gcn_networks, self.edge_importance):
            x = block(x, self.A * importance)
        return self.fcn(mean_over_persons(x, self.persons)).flatten(1)
