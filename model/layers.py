"""Small parts that several layers of EfficientGCN share."""

from __future__ import annotations

from paddle import nn

from model.conv import Conv2D

# Values are classes, so that every layer owns an activation of its own.
ACTIVATIONS: dict[str, type[nn.Layer]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": nn.Swish,  # not Silu, whose gradient is NaN below -88 in Paddle 3.1
}


def conv_norm(
    in_channel: int,
    out_channel: int,
    window: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Sequential:
    """Convolution over `window` frames (odd) with BatchNorm, (P, C, T, V) -> (P, C', T/stride, V).
    Sub-layers are called 0 and 1, as checkpoints of the public port name them."""
    return nn.Sequential(
        temporal_conv(in_channel, out_channel, window, stride=stride, groups=groups, bias=bias),
        nn.BatchNorm2D(out_channel),
    )


def temporal_conv(
    in_channel: int,
    out_channel: int,
    window: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> Conv2D:
    """Convolution over `window` frames (odd), padded so that only the stride shortens T."""
    return Conv2D(
        in_channel,
        out_channel,
        (window, 1),
        stride=(stride, 1),
        padding=((window - 1) // 2, 0),
        groups=groups,
        bias_attr=None if bias else False,
    )


def residual(channel: int, stride: int, bias: bool) -> nn.Layer:
    """The way around a temporal layer: identity, or a strided 1x1 convolution with BatchNorm."""
    if stride == 1:
        return nn.Identity()
    return conv_norm(channel, channel, stride=stride, bias=bias)
