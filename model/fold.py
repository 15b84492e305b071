"""BatchNorm and Dropout leave a network before it is exported.

In evaluation a BatchNorm is y * scale + shift with constants. Behind a convolution it goes into
the weights; elsewhere it stays as that product and sum. Static engines would otherwise redo part
of this at every call. The network is changed in place and is good for evaluation only after.
"""

from __future__ import annotations

from paddle import Tensor, nn

from model.conv import Conv2D


def batch_norm_affine(norm: nn.BatchNorm2D) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (C,), of a BatchNorm in evaluation."""
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
    """A convolution that does what `conv` and then `norm` do in evaluation."""
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
    """Fold every BatchNorm of a network and drop its Dropouts, in place.

    A layer that must fold something in its own way has a method `fold`, called first; a layer
    with a `conv` followed by a `bn`, and a Sequential with such neighbours, are seen to here.
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
                _replace(layer, name, fold_conv(conv, norm))
                _replace(layer, follower, nn.Identity())
        for name, child in layer.named_children():
            if isinstance(child, nn.BatchNorm2D):
                _replace(layer, name, Affine(*batch_norm_affine(child)))
            elif isinstance(child, nn.Dropout):
                _replace(layer, name, nn.Identity())


def _replace(parent: nn.Layer, name: str, layer: nn.Layer) -> None:
    parent._sub_layers[name] = layer
