"""The plain forms of public code, which the benchmarks compare our networks with. They have the
same weights and compute the same logits. Imports Paddle."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model import attention, conv, efficientgcn, layers, stgcn, temporal


def graph_conv(x: Tensor, adjacency: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(P, C, T, V), (K, V, V), (K*C', C, 1, 1), (K*C',) -> (P, C', T, V), by a 5-D einsum."""
    y = F.conv2d(x, weight, bias)
    p, kc, t, v = y.shape
    k = adjacency.shape[0]
    y = y.reshape([p, k, kc // k, t, v])
    return paddle.einsum("nkctv,kvw->nctw", y, adjacency)  # type: ignore[return-value]  # never None


# No lambdas below: Paddle cannot trace them into static models.
def _conv_then_norm(x: Tensor, conv: nn.Layer, norm: nn.Layer) -> Tensor:
    return norm(conv(x))


def _swish(self: nn.Layer, x: Tensor) -> Tensor:
    return F.swish(x)


def _mean_over_frames(x: Tensor, training: bool, tail: None) -> Tensor:
    return x.mean(axis=2, keepdim=True)


def _port_attention(self: attention.STJointAttention, x: Tensor, tail: None = None) -> Tensor:
    """The public port's joint attention: the product of both gates has the size of x."""
    _, _, t, v = x.shape
    over_joints = x.mean(axis=2, keepdim=True).transpose([0, 1, 3, 2])  # (P, C, V, 1)
    means = paddle.concat([x.mean(axis=3, keepdim=True), over_joints], axis=2)
    time_part, joint_part = paddle.split(self.act(self.fcn(means)), [t, v], axis=2)
    joint_gate = F.sigmoid(self.conv_v(joint_part.transpose([0, 1, 3, 2])))
    return x * (F.sigmoid(self.conv_t(time_part)) * joint_gate)


def use_plain_forms(*, port_attention: bool = False) -> None:
    """Replace our forms by the plain ones in this process. port_attention: the joint attention by
    that of the public port, too."""
    replacements = [
        (efficientgcn, "graph_conv", graph_conv),
        (stgcn, "graph_conv", graph_conv),
        (conv.Conv2D, "forward", nn.Conv2D.forward),
        *((module, "conv_then_norm", _conv_then_norm) for module in (layers, temporal, stgcn)),
        (layers.Swish, "forward", _swish),
        (attention, "mean_over_frames", _mean_over_frames),
    ]
    if port_attention:
        replacements.append((attention.STJointAttention, "forward", _port_attention))
    for owner, name, form in replacements:
        setattr(owner, name, form)
