"""Small parts that several layers of EfficientGCN share."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D, conv_then_norm
from model.tail import Tail


class Swish(nn.Layer):
    """x * sigmoid(x). F.silu is the same function with a backward that takes half the time, but
    NaN where x is below -88 in Paddle 3.1: it is taken where no number comes near that."""

    def forward(self, x: Tensor) -> Tensor:
        # On a GPU asking for the minimum would wait for all that is under way.
        if self.training and x.place.is_cpu_place() and float(x.min()) > -80:
            return F.silu(x)
        return F.swish(x)


# Values are classes, so that every layer owns an activation of its own.
ACTIVATIONS: dict[str, type[nn.Layer]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": Swish,
}


class ConvNorm(nn.Sequential):
    """A convolution, sub-layer 0, and a BatchNorm, sub-layer 1."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_then_norm(x, self[0], self[1])


def conv_norm(
    in_channel: int,
    out_channel: int,
    window: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> ConvNorm:
    """Convolution over `window` frames (odd) with BatchNorm, (P, C, T, V) -> (P, C', T/stride, V).
    Sub-layers are called 0 and 1, as checkpoints of the public port name them."""
    return ConvNorm(
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


def mean_over_frames(x: Tensor, training: bool, tail: Tail | None = None) -> Tensor:
    """(P, C, T, V) -> (P, C, 1, V). In training as a product, whose backward is 10 times faster."""
    if tail is not None:
        return tail.mean(x)
    t = x.shape[2]
    if training:
        return paddle.matmul(paddle.full([1, t], 1 / t), x)
    return x.mean(axis=2, keepdim=True)
