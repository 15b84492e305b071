"""Small parts that several layers share: activations, convolutions over time, pooling."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D, conv_then_norm
from model.tail import Tail
from model.timing import Timing


class Swish(nn.Layer):
    """x * sigmoid(x). F.silu is the same function with a backward that takes half the time, but
    its gradient is NaN where x is below -88 in Paddle 3.1; it is used where no value is near."""

    def forward(self, x: Tensor) -> Tensor:
        # On a GPU, reading the minimum would wait for all pending kernels.
        if self.training and x.place.is_cpu_place() and float(x.min()) > -80:
            return F.silu(x)
        return F.swish(x)


# Values are classes, so that every layer owns its activation.
ACTIVATIONS: dict[str, type[nn.Layer]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": Swish,
}


class ConvNorm(nn.Sequential):
    """A convolution, sub-layer 0, and a BatchNorm, sub-layer 1, as checkpoints of the public port
    name them."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_then_norm(x, self[0], self[1])


def conv_norm(
    in_channel: int,
    out_channel: int,
    timing: Timing | None = None,
    *,
    groups: int = 1,
    bias: bool = True,
) -> ConvNorm:
    """`temporal_conv` with BatchNorm, (P, C, T, V) -> (P, C', ceil(T / stride), V). Without a
    timing, a 1x1 convolution."""
    conv = temporal_conv(in_channel, out_channel, timing or Timing(), groups=groups, bias=bias)
    return ConvNorm(conv, nn.BatchNorm2D(out_channel))


def temporal_conv(
    in_channel: int, out_channel: int, timing: Timing, *, groups: int = 1, bias: bool = True
) -> Conv2D:
    """Convolution over time, (P, C, T, V) -> (P, C', ceil(T / stride), V)."""
    return Conv2D(
        in_channel,
        out_channel,
        (timing.kernel, 1),
        stride=(timing.stride, 1),
        padding=(timing.padding, 0),
        dilation=(timing.dilation, 1),
        groups=groups,
        bias_attr=None if bias else False,
    )


def residual(in_channel: int, out_channel: int, stride: int = 1, *, bias: bool = True) -> nn.Layer:
    """Residual connection: identity, or a 1x1 convolution with BatchNorm where sizes change."""
    if stride == 1 and in_channel == out_channel:
        return nn.Identity()
    return conv_norm(in_channel, out_channel, Timing(stride=stride), bias=bias)


def mean_over_frames(x: Tensor, training: bool, tail: Tail | None = None) -> Tensor:
    """(P, C, T, V) -> (P, C, 1, V). In training a matmul, whose backward is 10 times as fast."""
    if tail is not None:
        return tail.mean(x)
    t = x.shape[2]
    if training:
        return paddle.matmul(paddle.full([1, t], 1 / t), x)
    return x.mean(axis=2, keepdim=True)
