"""Random weights: one initialisation rule per network family, as in the original trainers."""

from __future__ import annotations

import math

from paddle import nn
from paddle.nn.initializer import Constant, Normal, Uniform


def init_efficientgcn(network: nn.Layer) -> None:
    """Convolutions: Kaiming normal by fan-out with gain sqrt(2), biases 0. Classifier: N(0, 0.001),
    as in the original (the public Paddle port uses a standard deviation of 1)."""
    for name, layer in network.named_sublayers():
        if not isinstance(layer, nn.Conv2D):
            continue
        out_channel, _, height, width = layer.weight.shape
        fan_out = out_channel * height * width
        std = 0.001 if name == "classifier.fc" else math.sqrt(2 / fan_out)
        Normal(0.0, std)(layer.weight)
        if layer.bias is not None:
            Constant(0.0)(layer.bias)


def init_stgcn(network: nn.Layer) -> None:
    """Convolutions: N(0, 0.02), biases 0. BatchNorm weights: N(1, 0.02)."""
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D):
            Normal(0.0, 0.02)(layer.weight)
            if layer.bias is not None:
                Constant(0.0)(layer.bias)
        elif isinstance(layer, nn.BatchNorm2D) and layer.weight is not None:
            Normal(1.0, 0.02)(layer.weight)


def init_rt_stgcn(network: nn.Layer) -> None:
    """Convolutions, all 1x1: weights and biases uniform, up to 1 / sqrt(input channels) on either
    side of 0, as torch draws them by default."""
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D):
            bound = 1 / math.sqrt(layer.weight.shape[1])
            Uniform(-bound, bound)(layer.weight)
            if layer.bias is not None:
                Uniform(-bound, bound)(layer.bias)
