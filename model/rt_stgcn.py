"""RT-ST-GCN (public code Realtime-ST-GCN) in its offline form: all frames of a clip at once, as in
training.

It differs from ST-GCN over time: a layer has no temporal weights, but adds the last `taps`
graph-convolved frames, `spacing` frames apart, and keeps the frame rate. Every other operation is
frame-wise. So the delay is 0, and all that a streaming form has to keep are graph-convolved frames:
`RTSTGCNLayer.graph` gives them, `RTSTGCNLayer.combine` computes a layer's output from their sum.

Offline, the public code adds only taps // spacing frames, which its streaming form does not
reproduce; here both add `taps` frames. Parameters are named as in the public code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D
from model.graph_conv import FoldedGraphConv, graph_conv
from model.network import ClipNetwork, Shape, split_persons
from model.tail import Tail
from model.timing import Timing, timings_of


class FrameNorm(nn.Layer):
    """Normalises each frame over channels and joints, with the unbiased variance of torch.var,
    (P, C, T, V) -> (P, C, T, V). weight, bias: (C, 1, V).

    Paddle's layer_norm divides the sum of squares by n = C*V, not by n - 1. It gives the same
    result with its epsilon multiplied by (n - 1) / n and its weight by the root of that. `fold`
    switches to the export form, which consists of common operators and needs no transposition.
    """

    def __init__(self, channel: int, num_joint: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        shape, count = [channel, 1, num_joint], channel * num_joint
        ratio = (count - 1) / count
        self.epsilon, self.factor = epsilon * ratio, math.sqrt(ratio)
        self.weight = self.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter(shape, is_bias=True)
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            return self._export_form(x)
        _, c, _, v = x.shape
        weight, bias = self.weight.reshape([-1]) * self.factor, self.bias.reshape([-1])
        by_frame = x.transpose([0, 2, 1, 3])  # (P, T, C, V)
        y = F.layer_norm(by_frame, [c, v], weight, bias, self.epsilon)
        return y.transpose([0, 2, 1, 3])

    def fold(self) -> None:
        """Switch to the export form."""
        self.folded = True
        self.register_buffer("scale", (self.weight * self.factor).detach())

    def _export_form(self, x: Tensor) -> Tensor:
        centred = x - x.mean(axis=[1, 3], keepdim=True)
        variance = (centred * centred).mean(axis=[1, 3], keepdim=True)  # (P, 1, T, 1)
        return centred / paddle.sqrt(variance + self.epsilon) * self.scale + self.bias


# The longest clip, in frames per tap, for which a product with a band matrix is faster than a
# convolution (docs/performance.md), and in frames, so that the matrix stays below 64 MB.
FRAMES_PER_TAP, LONGEST_BAND = 40, 4096


class CausalSum(nn.Layer):
    """Sum of frames t, t - dilation, ..., `timing.kernel` of them, with zeros before the clip,
    (P, C, T, V) -> (P, C, T, V).

    In training it is a product with a band matrix of ones, for long clips a depthwise convolution
    with ones. `fold` switches to the convolution as the export form, because the size of the matrix
    depends on T. A difference of cumulative sums would accumulate rounding errors.
    """

    def __init__(self, channel: int, timing: Timing) -> None:
        super().__init__()
        self.channel, self.timing = channel, timing
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            return self._convolve(x, self.ones)
        t = x.shape[2]
        if t > min(FRAMES_PER_TAP * self.timing.kernel, LONGEST_BAND):
            return self._convolve(x, paddle.ones(self._kernel_shape))
        return paddle.matmul(paddle.to_tensor(self.band(t)), x)

    def band(self, num_frame: int) -> np.ndarray:
        """(T, T): row t is 1 at the frames of which output frame t is the sum."""
        frame = np.arange(num_frame)
        back = frame[:, None] - frame  # frames from input to output
        taps, spacing = self.timing.kernel, self.timing.dilation
        return ((back % spacing == 0) & (back >= 0) & (back < taps * spacing)).astype(np.float32)

    def fold(self) -> None:
        """Switch to the export form."""
        self.folded = True
        self.register_buffer("ones", paddle.ones(self._kernel_shape))

    @property
    def _kernel_shape(self) -> list[int]:
        return [self.channel, 1, self.timing.kernel, 1]

    def _convolve(self, x: Tensor, ones: Tensor) -> Tensor:
        padding = [self.timing.padding, 0, 0, 0]  # in front only
        dilation = (self.timing.dilation, 1)
        return F.conv2d(x, ones, padding=padding, dilation=dilation, groups=self.channel)


class RTSTGCNLayer(nn.Layer):
    """y = dropout(relu(relu(norm(causal sum of graph(x))) + residual(x))), where the outer ReLU
    belongs to the residual connection, (P, C, T, V), (K, V, V) -> (P, C', T, V).

    The residual connection is the identity, or a 1x1 convolution with norm where the channels
    change or the taps are apart. x is added to the sum that ends at its own frame.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        graph_shape: Sequence[int],
        timing: Timing,
        drop_prob: float,
        *,
        edge_importance: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        num_partition, num_joint, _ = graph_shape
        self.timings = (timing,)
        self.conv: nn.Layer = Conv2D(in_channel, out_channel * num_partition, 1)
        self.edge_importance = None
        if edge_importance:
            ones = nn.initializer.Constant(1.0)
            self.edge_importance = self.create_parameter(
                list(graph_shape), default_initializer=ones
            )
        self.causal_sum = CausalSum(out_channel, timing)
        self.bn_relu = nn.Sequential(FrameNorm(out_channel, num_joint), nn.ReLU())
        self.residual: nn.Layer | None = None
        if residual and in_channel == out_channel and timing.dilation == 1:
            self.residual = nn.Identity()
        elif residual:
            self.residual = nn.Sequential(
                Conv2D(in_channel, out_channel, 1, bias_attr=False),
                FrameNorm(out_channel, num_joint),
            )
        self.dropout = nn.Dropout(drop_prob)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return self.combine(self.causal_sum(self.graph(x, adjacency)), x)

    def graph(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Graph convolution, (P, C, T, V), (K, V, V) -> (P, C', T, V). adjacency: of the network,
        before edge importance; ignored after `fold_graph`."""
        if isinstance(self.conv, FoldedGraphConv):
            return self.conv(x)
        return graph_conv(x, self._weighted(adjacency), self.conv.weight, self.conv.bias)

    def combine(self, summed: Tensor, x: Tensor) -> Tensor:
        """Output of the layer for the causal sums (P, C', T, V) and inputs (P, C, T, V) of the same
        frames, (P, C', T, V). Frame-wise."""
        y = self.bn_relu(summed)
        if self.residual is not None:
            y = F.relu(y + self.residual(x))
        return self.dropout(y)

    def fold_graph(self, adjacency: Tensor) -> None:
        """Fold adjacency and edge importance into the graph convolution."""
        weight, bias = self.conv.weight, self.conv.bias
        channel = self.causal_sum.channel
        identity = paddle.ones([channel]), paddle.zeros([channel])
        self.conv = FoldedGraphConv(self._weighted(adjacency), weight, bias, *identity)
        self.edge_importance = None

    def _weighted(self, adjacency: Tensor) -> Tensor:
        return adjacency if self.edge_importance is None else adjacency * self.edge_importance


class RTSTGCN(ClipNetwork):
    """adjacency: (K, V, V). in_channel: channels in front of the first layer. layers: output
    channels and causal sum over time of each. edge_importance: learn a weight for every edge, in
    every layer. residual: residual connections in all layers."""

    classifier_name = "fcn_out"

    def __init__(
        self,
        shape: Shape,
        adjacency: np.ndarray,
        in_channel: int,
        layers: Sequence[tuple[int, Timing]],
        drop_prob: float,
        *,
        edge_importance: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__(shape)
        self.num_joint = adjacency.shape[1]
        channel = sum(shape.branch_channels)
        self.register_buffer("A", paddle.to_tensor(adjacency, dtype="float32"))
        self.norm_in = FrameNorm(channel, self.num_joint)
        self.fcn_in = Conv2D(channel, in_channel, 1)
        self.st_gcn = nn.LayerList()
        channel = in_channel
        for out_channel, timing in layers:
            layer = RTSTGCNLayer(
                channel,
                out_channel,
                adjacency.shape,
                timing,
                drop_prob,
                edge_importance=edge_importance,
                residual=residual,
            )
            self.st_gcn.append(layer)
            channel = out_channel
        self.fcn_out = Conv2D(channel, shape.num_class, 1)

    def fold(self) -> None:
        """Fold adjacencies and edge importance into constants (model/fold.py)."""
        for layer in self.st_gcn:
            layer.fold_graph(self.A)

    @property
    def timings(self) -> tuple[Timing, ...]:
        return timings_of(self.st_gcn)

    def trunk(self, clips: Tensor, tail: Tail | None) -> Tensor:
        x = self.stem(split_persons(clips, self.num_joint))  # (P, C, T, V)
        for layer in self.st_gcn:
            x = layer(x, self.A)
        return x

    def stem(self, x: Tensor) -> Tensor:
        """What precedes the layers, (P, I*C, T, V) -> (P, C, T, V). Frame-wise."""
        return self.fcn_in(self.norm_in(x))

    def head(self, feature: Tensor) -> Tensor:
        return self.fcn_out(feature)

    def frame_logits(self, clips: Tensor) -> Tensor:
        """Clip tensor -> logits of every frame (P, num_class, T), from that frame and those before
        it. Their mean over T and M is the clip's logits."""
        pooled = self.trunk(clips, None).mean(axis=3, keepdim=True)  # (P, C, T, 1)
        return self.head(pooled).squeeze(3)


def causal(taps: int, spacing: int) -> Timing:
    """Timing of a causal sum of `taps` frames, `spacing` frames apart."""
    return Timing(kernel=taps, dilation=spacing, padding=spacing * (taps - 1))
