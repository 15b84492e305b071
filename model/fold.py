"""Fold BatchNorm into constants and remove Dropout, before a network is exported.

In evaluation, BatchNorm computes y * scale + shift with constant scale and shift. After a
convolution, both are folded into its weight and bias; elsewhere `Affine` computes them. Otherwise
static engines would repeat part of this in every call. A network is folded in place, and only
valid for evaluation afterwards.
"""

from __future__ import annotations

from paddle import Tensor, nn

from model.conv import Conv2D


def batch_norm_affine(norm: nn.BatchNorm2D) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (C,), of a BatchNorm in evaluation. Raises TypeError for one without
    weight or bias."""
    if norm.weight is None or norm.bias is None:
        raise TypeError(f"cannot fold {norm}: it has no weight or no bias")
    scale = norm.weight / (norm._variance + norm._epsilon).sqrt()
    return scale.detach(), (norm.bias - norm._mean * scale).detach()


class Affine(nn.Layer):
    """x * scale + shift per channel, (P, C, T, V) -> (P, C, T, V)."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.reshape([-1, 1, 1]))
        self.register_buffer("shift", shift.reshape([-1, 1, 1]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def fold_conv(conv: nn.Conv2D, norm: nn.BatchNorm2D) -> nn.Conv2D:
    """One convolution that equals `conv` followed by `norm` in evaluation."""
    scale, shift = batch_norm_affine(norm)
    folded = Conv2D(
        conv._in_channels,
        conv._out_channels,
        conv._kernel_size,
        stride=conv._stride,
        padding=conv._padding,
        dilation=conv._dilation,
        groups=conv._groups,
    )
    folded.weight.set_value(conv.weight * scale.reshape([-1, 1, 1, 1]))
    folded.bias.set_value(shift if conv.bias is None else conv.bias * scale + shift)
    return folded


def fold_network(network: nn.Layer) -> None:
    """Fold every BatchNorm of a network and remove its Dropouts, in place.

    First, the `fold` method of every layer that has one runs. Then BatchNorm is folded into the
    convolution before it: sub-layers `conv` and `bn`, and neighbours in a Sequential.
    """
    for layer in network.sublayers(include_self=True):
        if hasattr(layer, "fold"):
            layer.fold()
    for layer in network.sublayers(include_self=True):
        children = dict(layer.named_children())
        names = list(children) if isinstance(layer, nn.Sequential) else ["conv", "bn"]
        for name, follower in zip(names, names[1:]):
            conv, norm = children.get(name), children.get(follower)
            if isinstance(conv, nn.Conv2D) and isinstance(norm, nn.BatchNorm2D):
                layer.add_sublayer(name, fold_conv(conv, norm))
                layer.add_sublayer(follower, nn.Identity())
        for name, child in layer.named_children():
            if isinstance(child, nn.BatchNorm2D):
                layer.add_sublayer(name, Affine(*batch_norm_affine(child)))
            elif isinstance(child, nn.Dropout):
                layer.add_sublayer(name, nn.Identity())
