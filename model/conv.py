"""2-D convolution with a bias that is cheap on CPUs, and its fused form with BatchNorm."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from model.threads import over_persons


class Conv2D(nn.Conv2D):
    """paddle.nn.Conv2D with the same parameter names and results. Paddle broadcasts the bias as
    (1, C, 1, 1), which takes 20 times as long as (C, 1, 1) and longer than the convolution itself
    (docs/performance.md)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.without_bias(x)
        return y if self.bias is None else y + self.bias.reshape([-1, 1, 1])

    def without_bias(self, x: Tensor) -> Tensor:
        """The convolution alone, (P, C, T, V) -> (P, C', T', V)."""
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


def conv_then_norm(x: Tensor, conv: nn.Layer, norm: nn.Layer) -> Tensor:
    """norm(conv(x)) of a Conv2D and a BatchNorm2D, or an Identity once that is folded.

    In training, BatchNorm subtracts any constant of a channel, so the bias is not added to the
    activations: it only shifts the running mean, and its gradient is 0.
    """
    trains = isinstance(norm, nn.BatchNorm2D) and norm.training
    if not isinstance(conv, Conv2D) or not trains or conv.bias is None:
        return norm(conv(x))
    bias = conv.bias.detach()
    mean_without = norm._mean - bias
    y = F.batch_norm(
        conv.without_bias(x),
        mean_without,
        norm._variance,
        norm.weight,
        norm.bias + 0.0 * conv.bias,  # gives conv.bias a gradient, 0, as weight decay needs one
        training=True,
        momentum=norm._momentum,
        epsilon=norm._epsilon,
    )
    norm._mean.set_value(mean_without + bias)
    return y
