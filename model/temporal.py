"""Temporal layers of EfficientGCN (TPAMI 2022, section 3.3): (P, C, T, V) -> (P, C, T/stride, V).

Each has a residual connection. The separable layers, Sep and SG, have no activation after the sum,
as in the original code. Sub-layers are named as in public checkpoints.
"""

from __future__ import annotations

from dataclasses import replace

from paddle import Tensor, nn

from model.conv import conv_then_norm
from model.layers import ACTIVATIONS, conv_norm, residual, temporal_conv
from model.timing import Timing


class TemporalBasic(nn.Layer):
    """act(BN(conv) + residual)."""

    def __init__(self, channel: int, timing: Timing, act: str, bias: bool) -> None:
        super().__init__()
        self.timings = (timing,)
        self.conv = temporal_conv(channel, channel, timing, bias=bias)
        self.bn = nn.BatchNorm2D(channel)
        self.residual = residual(channel, channel, timing.stride, bias=bias)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(conv_then_norm(x, self.conv, self.bn) + self.residual(x))


class TemporalBottleneck(nn.Layer):
    """Pointwise reduction to channel // ratio channels, convolution over time, expansion."""

    def __init__(self, channel: int, timing: Timing, act: str, bias: bool, ratio: int) -> None:
        super().__init__()
        self.timings = (timing,)
        inner = channel // ratio
        self.reduct_conv = conv_norm(channel, inner, bias=bias)
        self.conv = conv_norm(inner, inner, timing, bias=bias)
        self.expand_conv = conv_norm(inner, channel, bias=bias)
        self.residual = residual(channel, channel, timing.stride, bias=bias)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self.conv(self.act(self.reduct_conv(x))))
        return self.act(self.expand_conv(inner) + self.residual(x))


class TemporalSep(nn.Layer):
    """Depthwise separable convolution (MobileNetV2) on channel * ratio channels; 0: without the
    expansion."""

    def __init__(self, channel: int, timing: Timing, act: str, bias: bool, ratio: int) -> None:
        super().__init__()
        self.timings = (timing,)
        inner = channel * ratio if ratio else channel
        self.expand_conv = conv_norm(channel, inner, bias=bias) if ratio else None
        self.depth_conv = conv_norm(inner, inner, timing, groups=inner, bias=bias)
        self.point_conv = conv_norm(inner, channel, bias=bias)
        self.residual = residual(channel, channel, timing.stride, bias=bias)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand_conv is None else self.act(self.expand_conv(x))
        return self.point_conv(self.act(self.depth_conv(inner))) + self.residual(x)


class TemporalSG(nn.Layer):
    """Sandglass (MobileNeXt): depthwise convolution, pointwise reduction to channel // ratio
    channels and expansion, depthwise convolution with the stride."""

    def __init__(self, channel: int, timing: Timing, act: str, bias: bool, ratio: int) -> None:
        super().__init__()
        self.timings = (replace(timing, stride=1), timing)
        first, last = self.timings
        inner = channel // ratio
        self.depth_conv1 = conv_norm(channel, channel, first, groups=channel, bias=bias)
        self.point_conv1 = conv_norm(channel, inner, bias=bias)
        self.point_conv2 = conv_norm(inner, channel, bias=bias)
        self.depth_conv2 = conv_norm(channel, channel, last, groups=channel, bias=bias)
        self.residual = residual(channel, channel, timing.stride, bias=bias)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.point_conv1(self.act(self.depth_conv1(x)))
        return self.depth_conv2(self.act(self.point_conv2(inner))) + self.residual(x)
