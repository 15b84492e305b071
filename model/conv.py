"""Convolution with a bias that Paddle adds quickly on CPUs."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn


class Conv2D(nn.Conv2D):
    """paddle.nn.Conv2D, same names and numbers. Paddle adds the bias as (1, C, 1, 1), which takes
    20 times as long as (C, 1, 1) and longer than the convolution itself (docs/performance.md)."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(
            x,
            self.weight,
            stride=self._stride,
            padding=self._updated_padding,
            groups=self._groups,
        )
        return y if self.bias is None else y + self.bias.reshape([-1, 1, 1])
