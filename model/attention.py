"""Attention of EfficientGCN: act(BN(x * gate(x)) + x), (P, C, T, V) -> (P, C, T, V).

'stja' is ST-JointAtt (TPAMI 2022, section 3.4, eq. 7); the others are the alternatives that the
paper compares it with. Where the public Paddle port differs (joint attention pools by maximum, part
attention cannot run), this module follows the original. 'fa' has no sigmoid in either code. For
truncated clips (model/tail.py), means over frames are those of the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D
from model.layers import ACTIVATIONS, conv_norm, mean_over_frames, temporal_conv
from model.tail import Tail
from model.timing import Timing, timings_of


def pooled_frames(x: Tensor, tail: Tail | None) -> Tensor:
    """x, or for truncated clips its mean over the frames of the whole clip, (P, C, 1, V)."""
    return x if tail is None else tail.mean(x)


def squeeze(in_channel: int, inner: int, out_channel: int, *, bias: bool = True) -> list[nn.Layer]:
    """Layers of a bottleneck on the mean over T and V, (P, C, T, V) -> (P, C', 1, 1)."""
    return [
        nn.AdaptiveAvgPool2D(1),
        Conv2D(in_channel, inner, 1, bias_attr=bias),
        nn.BatchNorm2D(inner),
        nn.ReLU(),
        Conv2D(inner, out_channel, 1, bias_attr=bias),
    ]


class STJointAttention(nn.Layer):
    """Sigmoid gate over (C, T), from the mean over joints, times one over (C, V), from the mean
    over frames."""

    def __init__(self, channel: int, *, reduct_ratio: int, bias: bool) -> None:
        super().__init__()
        inner = channel // reduct_ratio
        self.fcn = conv_norm(channel, inner, bias=bias)
        self.act = nn.Hardswish()
        self.conv_t = Conv2D(inner, channel, 1)
        self.conv_v = Conv2D(inner, channel, 1)

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        over_time = x.mean(axis=3, keepdim=True)  # (P, C, T, 1)
        over_joints = mean_over_frames(x, self.training, tail)  # (P, C, 1, V)
        over_time, over_joints = self._reduce(over_time, over_joints)
        time_gate = F.sigmoid(self.conv_t(over_time))
        joint_gate = F.sigmoid(self.conv_v(over_joints))
        if not self.training:
            return x * joint_gate * time_gate
        # A single product with x has a cheaper backward pass. One gate is expanded first, because
        # Paddle is slow when both factors are broadcast.
        return x * (joint_gate.expand([-1, -1, x.shape[2], -1]) * time_gate)

    def _reduce(self, over_time: Tensor, over_joints: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the shared 1x1 convolution; in training to both inputs at once, so that its
        BatchNorm normalises them together. (P, C, T, 1), (P, C, 1, V) -> the same with C'."""
        if not self.training:
            return self.act(self.fcn(over_time)), self.act(self.fcn(over_joints))
        t, v = over_time.shape[2], over_joints.shape[3]
        over_joints = over_joints.transpose([0, 1, 3, 2])  # (P, C, V, 1)
        both = self.act(self.fcn(paddle.concat([over_time, over_joints], axis=2)))
        over_time, over_joints = paddle.split(both, [t, v], axis=2)
        return over_time, over_joints.transpose([0, 1, 3, 2])


class PartAttention(nn.Layer):
    """Softmax over body parts; every joint is gated by the weight of its part."""

    def __init__(
        self, channel: int, *, reduct_ratio: int, bias: bool, parts: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.channel, self.num_part = channel, len(parts)
        inner, out_channel = channel // reduct_ratio, channel * len(parts)
        self.fcn = nn.Sequential(*squeeze(channel, inner, out_channel, bias=bias))
        num_joint = sum(len(part) for part in parts)
        members = paddle.to_tensor([[float(v in part) for v in range(num_joint)] for part in parts])
        self.register_buffer("members", members, persistable=False)  # (parts, V) of 0 and 1

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        weight = self.fcn(pooled_frames(x, tail)).reshape([-1, self.channel, 1, self.num_part])
        return x * paddle.matmul(F.softmax(weight, axis=3), self.members)  # gate (P, C, 1, V)


class ChannelAttention(nn.Layer):
    """Squeeze-and-excitation with a reduction ratio of 4."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.fcn = nn.Sequential(*squeeze(channel, channel // 4, channel), nn.Sigmoid())

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        return x * self.fcn(pooled_frames(x, tail))  # gate (P, C, 1, 1)


class FrameAttention(nn.Layer):
    """Convolution with kernel size 9 over the mean and the maximum of each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.timings = (Timing.centred(9),)
        self.conv = temporal_conv(2, 1, *self.timings)

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        """`tail` is ignored: there is no mean over frames."""
        mean = x.mean(axis=[1, 3], keepdim=True)  # (P, 1, T, 1)
        peak = x.max(axis=[1, 3], keepdim=True)
        return x * self.conv(paddle.concat([mean, peak], axis=1))  # gate (P, 1, T, 1)


class JointAttention(nn.Layer):
    """Softmax over joints, from the mean over channels and frames of each joint."""

    def __init__(self, num_joint: int) -> None:
        super().__init__()
        layers = squeeze(num_joint, num_joint // 2, num_joint)
        self.fcn = nn.Sequential(*layers, nn.Softmax(axis=1))

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        by_joint = self.fcn(pooled_frames(x, tail).transpose([0, 3, 2, 1]))  # (P, V, 1, 1)
        return x * by_joint.transpose([0, 3, 2, 1])  # gate (P, 1, 1, V)


class AttentionLayer(nn.Layer):
    """Attention, BatchNorm, residual connection and activation."""

    def __init__(self, channel: int, attention: nn.Layer, *, act: str) -> None:
        super().__init__()
        self.timings = timings_of([attention])
        self.att = attention
        self.bn = nn.BatchNorm2D(channel)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        return self.act(self.bn(self.att(x, tail)) + x)
