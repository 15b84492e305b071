"""Building blocks shared by several layers: activations, convolutions over time, pooling."""

from __future__ import annotations

import functools

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D, conv_then_norm
from model.tail import Tail
from model.timing import Timing


class Swish(nn.Layer):
    """x * sigmoid(x). F.silu is the same function with a backward pass that takes half the time,
    but its gradient is NaN for x below -88 in Paddle 3.1, so all values must be above -80."""

    def forward(self, x: Tensor) -> Tensor:
        # CPU only: on a GPU, reading the minimum would wait for all pending kernels.
        if self.training and x.place.is_cpu_place() and float(x.min()) > -80:
            return F.silu(x)
        return F.swish(x)


# Classes, not instances: every layer creates its own activation.
ACTIVATIONS: dict[str, type[nn.Layer]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": Swish,
}


class ConvNorm(nn.Sequential):
    """Convolution (sub-layer 0) and BatchNorm (sub-layer 1), named as in the public port's
    checkpoints."""

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
    """`temporal_conv` and BatchNorm, (P, C, T, V) -> (P, C', ceil(T / stride), V). timing None: a
    1x1 convolution."""
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
        bias_attr=bias,
    )


def residual(in_channel: int, out_channel: int, stride: int = 1, *, bias: bool = True) -> nn.Layer:
    """Residual connection, (P, C, T, V) -> (P, C', ceil(T / stride), V): identity where the shapes
    are equal, else a 1x1 convolution with BatchNorm."""
    if stride == 1 and in_channel == out_channel:
        return nn.Identity()
    return conv_norm(in_channel, out_channel, Timing(stride=stride), bias=bias)


def mean_over_frames(x: Tensor, training: bool, tail: Tail | None = None) -> Tensor:
    """(P, C, T, V) -> (P, C, 1, V). tail: of truncated clips, else None. In training the mean is
    a matmul, whose backward pass is 10 times as fast."""
    if tail is not None:
        return tail.mean(x)
    t = x.shape[2]
    if training:
        return paddle.matmul(paddle.full([1, t], 1 / t), x)
    return x.mean(axis=2, keepdim=True)


def cumulative_mean(x: Tensor) -> Tensor:
    """At each frame the mean over the frames up to it, (P, C, T, V) -> (P, C, T, V). A product with
    a constant matrix: compilers for accelerators have no cumulative sum (docs/export.md)."""
    return paddle.matmul(paddle.to_tensor(_averaging_matrix(x.shape[2])), x)


@functools.lru_cache(maxsize=16)
def _averaging_matrix(t: int) -> np.ndarray:
    """(T, T) float32, lower triangular: row t has 1 / (t + 1) at the frames 0 to t."""
    return np.tri(t, dtype=np.float32) / np.arange(1, t + 1, dtype=np.float32)[:, None]
