"""The graph convolution of all networks, 4-D and without einsum: a training and an export form.

Published form (ST-GCN, AAAI 2018, eq. 10; EfficientGCN, TPAMI 2022, eq. 3): a 1x1 convolution to
K*C' channels, then y[.., w] = sum over k, v of x_k[.., v] A[k, v, w]. Both forms compute the same
sum in another order, and keep every tensor at rank 4.

1. Training, `graph_conv`: aggregate the joints of each partition, then mix the channels.

       y = conv1x1(concat_k(x @ A[k]))          K*C -> C'
       bias of joint w = sum over k of bias_k * (column sum of A[k] at w)

2. Export, `FoldedGraphConv`: adjacency, weights, bias and the following BatchNorm are constants.
   The channels are mixed first, channels last, then all partitions are aggregated at once:

       y = A' @ reshape(x @ W)                  (V, V*K) @ (V*K, C')
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn


def aggregate_first(weight: Tensor, num_partition: int) -> Tensor:
    """Weight of a checkpoint (K*C', C, 1, 1), K slow -> weight of form 1 (C', K*C, 1, 1)."""
    out_channel = weight.shape[0] // num_partition
    weight = weight.reshape([num_partition, out_channel, -1])  # (K, C', C)
    return weight.transpose([1, 0, 2]).reshape([out_channel, -1, 1, 1])  # (C', K*C, 1, 1)


def graph_conv(x: Tensor, adjacency: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Graph convolution in the training form, with weights in the shape of checkpoints.

    x: (P, C, T, V). adjacency: (K, V, V), [k, source, target]. weight: (K*C', C, 1, 1), K slow.
    bias: (K*C',) or None. Returns (P, C', T, V).
    """
    num_partition = adjacency.shape[0]
    gathered = [paddle.matmul(x, adjacency[k]) for k in range(num_partition)]  # K of (P, C, T, V)
    mixing = aggregate_first(weight, num_partition)
    if bias is not None:
        # The bias of joint w is weighted by the column sums of A[k] at w. With these sums as K
        # more input channels, the convolution adds it, without another pass over the result.
        p, _, t, v = x.shape
        gathered.append(adjacency.sum(axis=1).unsqueeze(1).expand([p, num_partition, t, v]))
        per_partition = bias.reshape([num_partition, -1, 1, 1]).transpose([1, 0, 2, 3])  # (C', K)
        mixing = paddle.concat([mixing, per_partition], axis=1)
    return F.conv2d(paddle.concat(gathered, axis=1), mixing)


NARROW = 4  # out_channel / in_channel above which aggregating first is cheaper


class FoldedGraphConv(nn.Layer):
    """Graph convolution in the export form, with the following BatchNorm folded in.

    As two matrix products with channels last, all K partitions are one product over K*V joints, and
    engines that store channels last need no transposition (docs/performance.md). With few input
    channels it aggregates first.

    adjacency, weight, bias: see `graph_conv`. scale, shift: (C',), BatchNorm as y * scale + shift.
    """

    def __init__(
        self, adjacency: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> None:
        super().__init__()
        k, v, _ = adjacency.shape
        mixing = aggregate_first(weight, k) * scale.reshape([-1, 1, 1, 1])  # (C', K*C, 1, 1)
        out_channel = mixing.shape[0]
        offset = shift.reshape([-1, 1, 1]) + paddle.zeros([v])  # (C', 1, V)
        if bias is not None:
            by_joint = paddle.matmul(bias.reshape([k, -1]), adjacency.sum(1), transpose_x=True)
            offset = offset + by_joint.unsqueeze(1) * scale.reshape([-1, 1, 1])  # (C', 1, V)
        self.narrow = NARROW * weight.shape[1] < out_channel
        if self.narrow:
            self.num_partition = k
            for index in range(k):  # separate buffers, so that the graph has no slice operators
                self.register_buffer(f"adjacency_{index}", adjacency[index].detach())
        else:
            self.mixed_shape = [0, -1, v * k, out_channel]  # 0: unchanged
            by_partition = mixing.reshape([out_channel, k, -1]).transpose([2, 1, 0])  # (C, K, C')
            mixing = by_partition.reshape([-1, k * out_channel])
            offset = offset.transpose([1, 2, 0])  # (1, V, C')
            joints = adjacency.transpose([2, 1, 0]).reshape([v, v * k])  # [w, v*K + k]
            self.register_buffer("joints", joints.detach())
        self.register_buffer("weight", mixing.detach())
        self.register_buffer("offset", offset.detach())

    def forward(self, x: Tensor, adjacency: Tensor | None = None) -> Tensor:
        """(P, C, T, V) -> (P, C', T, V). `adjacency` is ignored: it is folded in already."""
        if self.narrow:
            gathered = [
                paddle.matmul(x, getattr(self, f"adjacency_{k}")) for k in range(self.num_partition)
            ]
            return F.conv2d(paddle.concat(gathered, axis=1), self.weight) + self.offset
        mixed = paddle.matmul(x.transpose([0, 2, 3, 1]), self.weight)  # (P, T, V, K*C')
        mixed = mixed.reshape(self.mixed_shape)  # (P, T, V*K, C')
        y = paddle.matmul(self.joints, mixed) + self.offset  # (P, T, V, C')
        return y.transpose([0, 3, 1, 2])
