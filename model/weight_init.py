"""Weight initialisation, one rule a network family, as the original trainers do it."""

from __future__ import annotations

import math

from paddle import nn
from paddle.nn.initializer import Constant, Normal


def init_efficientgcn(network: nn.Layer) -> None:
    """Kaiming normal by fan-out with gain sqrt(2) for convolutions, biases 0. The classifier
    starts near zero with std 0.001, as in the original (the public Paddle port draws 1.0)."""
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
    """N(0, 0.02) for convolutions, biases 0, BatchNorm weights N(1, 0.02)."""
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D):
            Normal(0.0, 0.02)(layer.weight)
            if layer.bias is not None:
                Constant(0.0)(layer.bias)
        elif isinstance(layer, nn.BatchNorm2D):
            Normal(1.0, 0.02)(layer.weight)
