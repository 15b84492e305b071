"""Attention of EfficientGCN: act(BN(x * gate(x)) + x), (P, C, T, V) -> (P, C, T, V).

'stja' is ST-JointAtt (TPAMI 2022, section 3.4, eq. 7); the others are the alternatives that the
paper compares it with. Where the public Paddle port differs (joint attention pools by maximum, part
attention cannot run), this module follows the original. 'fa' has no sigmoid in either code. For
truncated clips (model/tail.py), means over frames are those of the whole clip.

In the causal form of an attention, frame t is gated by the mean over frames 0 to t instead, so that
frames can be processed as they arrive. Parameters are the same. 'fa' has no mean over frames, and
no causal form.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D
from model.layers import (
    ACTIVATIONS,
    conv_norm,
    cumulative_mean,
    mean_over_frames,
    temporal_conv,
)
from model.tail import Tail
from model.timing import Timing, timings_of


class MeanGate(nn.Layer):
    """Multiplies x by a gate that depends on the mean over its frames.

    causal: on the cumulative mean. A frame's output then depends on no later frame, and a form for
    streams only needs the cumulative mean of the frames so far and `gated`.
    """

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def gated(self, x: Tensor, mean: Tensor) -> Tensor:
        """x times its gate, (P, C, T, V) -> (P, C, T, V). mean: over all frames, (P, C, 1, V), or
        causal: the cumulative mean, (P, C, T, V). In evaluation, frame t of the result depends on
        frame t of both alone."""
        raise NotImplementedError

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        """tail: of truncated clips, not causal ones (`ClipNetwork.truncates`)."""
        if self.causal:
            return self.gated(x, cumulative_mean(x))
        return self.gated(x, mean_over_frames(x, self.training, tail))


class LastAxisMean(nn.Layer):
    """Mean over the last axis, (P, C, T, V) -> (P, C, T, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(axis=3, keepdim=True)


def squeeze(in_channel: int, inner: int, out_channel: int, *, bias: bool = True) -> list[nn.Layer]:
    """Layers of a bottleneck on the mean over the last axis, (P, C, T, V) -> (P, C', T, 1)."""
    return [
        LastAxisMean(),
        Conv2D(in_channel, inner, 1, bias_attr=bias),
        nn.BatchNorm2D(inner),
        nn.ReLU(),
        Conv2D(inner, out_channel, 1, bias_attr=bias),
    ]


class STJointAttention(MeanGate):
    """Sigmoid gate over (C, T), from the mean over joints, times one over (C, V), from the mean
    over frames; if causal, over (C, T, V)."""

    def __init__(
        self, channel: int, *, reduct_ratio: int, bias: bool, causal: bool = False
    ) -> None:
        super().__init__(causal=causal)
        inner = channel // reduct_ratio
        self.fcn = conv_norm(channel, inner, bias=bias)
        self.act = nn.Hardswish()
        self.conv_t = Conv2D(inner, channel, 1)
        self.conv_v = Conv2D(inner, channel, 1)

    def gated(self, x: Tensor, mean: Tensor) -> Tensor:
        over_time = x.mean(axis=3, keepdim=True)  # (P, C, T, 1)
        over_time, over_joints = self._reduce(over_time, mean)
        time_gate = F.sigmoid(self.conv_t(over_time))
        joint_gate = F.sigmoid(self.conv_v(over_joints))
        if not self.training:
            return x * joint_gate * time_gate
        # A single product with x has a cheaper backward pass. One gate is expanded first, because
        # Paddle is slow when both factors are broadcast.
        return x * (joint_gate.expand([-1, -1, x.shape[2], -1]) * time_gate)

    def _reduce(self, over_time: Tensor, over_joints: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the shared 1x1 convolution; in training to both inputs at once, so that its
        BatchNorm normalises them together. (P, C, T, 1), (P, C, T', V) -> the same with C'; T' is
        T if causal, else 1."""
        if not self.training:
            return self.act(self.fcn(over_time)), self.act(self.fcn(over_joints))
        p, c, t, v = over_joints.shape
        over_joints = over_joints.reshape([p, c, t * v, 1])
        both = self.act(self.fcn(paddle.concat([over_time, over_joints], axis=2)))
        over_time, over_joints = paddle.split(both, [over_time.shape[2], t * v], axis=2)
        return over_time, over_joints.reshape([p, -1, t, v])


class PartAttention(MeanGate):
    """Softmax over body parts; every joint is gated by the weight of its part."""

    def __init__(
        self,
        channel: int,
        *,
        reduct_ratio: int,
        bias: bool,
        parts: Sequence[Sequence[int]],
        causal: bool = False,
    ) -> None:
        super().__init__(causal=causal)
        self.channel, self.num_part = channel, len(parts)
        inner, out_channel = channel // reduct_ratio, channel * len(parts)
        self.fcn = nn.Sequential(*squeeze(channel, inner, out_channel, bias=bias))
        num_joint = sum(len(part) for part in parts)
        members = paddle.to_tensor([[float(v in part) for v in range(num_joint)] for part in parts])
        self.register_buffer("members", members, persistable=False)  # (parts, V) of 0 and 1

    def gated(self, x: Tensor, mean: Tensor) -> Tensor:
        weight = self.fcn(mean)  # (P, C * parts, 1 or T, 1)
        weight = weight.reshape([-1, self.channel, self.num_part, mean.shape[2]])
        weight = F.softmax(weight.transpose([0, 1, 3, 2]), axis=3)  # (P, C, 1 or T, parts)
        return x * paddle.matmul(weight, self.members)  # gate (P, C, 1 or T, V)


class ChannelAttention(MeanGate):
    """Squeeze-and-excitation with a reduction ratio of 4."""

    def __init__(self, channel: int, *, causal: bool = False) -> None:
        super().__init__(causal=causal)
        self.fcn = nn.Sequential(*squeeze(channel, channel // 4, channel), nn.Sigmoid())

    def gated(self, x: Tensor, mean: Tensor) -> Tensor:
        return x * self.fcn(mean)  # gate (P, C, 1 or T, 1)


class FrameAttention(nn.Layer):
    """Convolution with kernel size 9 over the mean and the maximum of each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.timings = (Timing.centred(9),)
        self.conv = temporal_conv(2, 1, *self.timings)

    def forward(self, x: Tensor, tail: Tail | None = None) -> Tensor:
        """`tail` is ignored: there is no mean over frames."""
        return x * self.conv(self.statistics(x))  # gate (P, 1, T, 1)

    def statistics(self, x: Tensor) -> Tensor:
        """(P, C, T, V) -> (P, 2, T, 1)."""
        mean = x.mean(axis=[1, 3], keepdim=True)
        return paddle.concat([mean, x.max(axis=[1, 3], keepdim=True)], axis=1)


class JointAttention(MeanGate):
    """Softmax over joints, from the mean over channels and frames of each joint."""

    def __init__(self, num_joint: int, *, causal: bool = False) -> None:
        super().__init__(causal=causal)
        layers = squeeze(num_joint, num_joint // 2, num_joint)
        self.fcn = nn.Sequential(*layers, nn.Softmax(axis=1))

    def gated(self, x: Tensor, mean: Tensor) -> Tensor:
        by_joint = self.fcn(mean.transpose([0, 3, 2, 1]))  # (P, V, 1 or T, 1)
        return x * by_joint.transpose([0, 3, 2, 1])  # gate (P, 1, 1 or T, V)


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
