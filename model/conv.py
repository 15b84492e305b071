"""Convolution with a bias that Paddle adds quickly on CPUs, or need not add at all."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from model.threads import over_persons


class Conv2D(nn.Conv2D):
    """paddle.nn.Conv2D, same names and numbers. Paddle adds the bias as (1, C, 1, 1), which takes
    20 times as long as (C, 1, 1) and longer than the convolution itself (docs/performance.md)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.without_bias(x)
        return y if self.bias is None else y + self.bias.reshape([-1, 1, 1])

    def without_bias(self, x: Tensor) -> Tensor:
        return over_persons(self._convolve, x, self.weight)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(
            x,
            weight,
            stride=self._stride,
            padding=self._updated_padding,
            dilation=self._dilation,
            groups=self._groups,
        )


def conv_then_norm(x: Tensor, conv: Conv2D, norm: nn.Layer) -> Tensor:
    """norm(conv(x)). In training a BatchNorm takes away whatever constant a channel has, so the
    bias is not added to every number: it only moves the running mean, and its gradient is 0."""
    trains = isinstance(norm, nn.BatchNorm2D) and norm.training  # a folded one is an Identity
    if not trains or conv.bias is None:
        return norm(conv(x))
    bias = conv.bias.detach()
    mean_without = norm._mean - bias
    y = F.batch_norm(
        conv.without_bias(x),
        mean_without,
        norm._variance,
        norm.weight,
        norm.bias + 0.0 * conv.bias,
        training=True,
        momentum=norm._momentum,
        epsilon=norm._epsilon,
    )
    norm._mean.set_value(mean_without + bias)
    return y
