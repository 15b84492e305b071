"""The streaming form of every layer and network that has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from errors import UserError
from model import attention as att
from model.efficientgcn import EfficientGCN, SpatialGraphLayer
from model.fold import Affine
from model.network import split_persons
from model.rt_stgcn import RTSTGCN
from model.stgcn import STGCN
from model.streaming.plan import WindowSum
from model.streaming.step import Signal, Step
from model.temporal import TemporalBasic, TemporalBottleneck, TemporalSep, TemporalSG
from model.timing import Timing


def trunk(network: nn.Layer, step: Step, frames: Signal) -> Signal:
    """The feature of a step. frames: (P, V, I*C, count). Raises UserError for a network without
    a streaming form."""
    return _form(TRUNKS, network)(network, step, frames)


def _form(forms: dict[type, Callable[..., Signal]], layer: nn.Layer) -> Callable[..., Signal]:
    if type(layer) not in forms:
        raise UserError(
            f"{type(layer).__name__} has no streaming form; allowed: "
            f"{', '.join(kind.__name__ for kind in forms)}"
        )
    return forms[type(layer)]


def _stgcn(network: STGCN, step: Step, frames: Signal) -> Signal:
    signal = frames.replaced(network.normalised(frames.x))
    pairs = zip(network.st_gcn_networks, network.adjacencies())
    for index, (block, adjacency) in enumerate(pairs):
        with step.scope(f"block{index}"):
            signal = _stgcn_block(block, step, signal, adjacency)
    return signal


def _stgcn_block(block: Any, step: Step, signal: Signal, adjacency: Tensor) -> Signal:
    """block: an `STGCNBlock`, perhaps folded."""
    timing = block.timings[0]
    norm, relu, conv, last_norm, _ = block.tcn
    y = step.conv(signal.replaced(relu(norm(block.gcn(signal.x, adjacency)))), conv, timing)
    y = y.replaced(last_norm(y.x))
    if block.residual is not None:
        y = step.add(y, step.residual(signal, block.residual, timing.stride))
    return y.replaced(F.relu(y.x))


def _efficientgcn(network: EfficientGCN, step: Step, frames: Signal) -> Signal:
    x = split_persons(frames.x, network.num_joint)
    branches = []
    for index, part in enumerate(paddle.split(x, network.branch_channels, axis=1)):
        with step.scope(f"branch{index}"):
            branches.append(_run(network.input_branches[index], step, frames.replaced(part)))
    fused = branches[0].replaced(paddle.concat([branch.x for branch in branches], axis=1))
    with step.scope("main"):
        return _run(network.main_stream, step, fused)


def _run(layers: Iterable[nn.Layer], step: Step, signal: Signal) -> Signal:
    for index, layer in enumerate(layers):
        with step.scope(f"layer{index}"):
            signal = _form(LAYERS, layer)(layer, step, signal)
    return signal


def _frame_wise(layer: nn.Layer, step: Step, signal: Signal) -> Signal:
    return signal.replaced(layer(signal.x))


def _basic(layer: TemporalBasic, step: Step, signal: Signal) -> Signal:
    y = step.conv(signal, layer.conv, layer.timings[0])
    y = y.replaced(layer.bn(y.x))
    y = step.add(y, step.residual(signal, layer.residual, layer.timings[0].stride))
    return y.replaced(layer.act(y.x))


def _conv_norm(
    step: Step, signal: Signal, layers: Any, timing: Timing, name: str = "conv"
) -> Signal:
    y = step.conv(signal, layers[0], timing, name)
    return y.replaced(layers[1](y.x))


def _bottleneck(layer: TemporalBottleneck, step: Step, signal: Signal) -> Signal:
    timing = layer.timings[0]
    y = signal.replaced(layer.act(layer.reduct_conv(signal.x)))
    y = _conv_norm(step, y, layer.conv, timing)
    y = y.replaced(layer.expand_conv(layer.act(y.x)))
    y = step.add(y, step.residual(signal, layer.residual, timing.stride))
    return y.replaced(layer.act(y.x))


def _separable(layer: TemporalSep, step: Step, signal: Signal) -> Signal:
    timing = layer.timings[0]
    x = signal.x if layer.expand_conv is None else layer.act(layer.expand_conv(signal.x))
    y = _conv_norm(step, signal.replaced(x), layer.depth_conv, timing)
    y = y.replaced(layer.point_conv(layer.act(y.x)))
    return step.add(y, step.residual(signal, layer.residual, timing.stride))


def _sandglass(layer: TemporalSG, step: Step, signal: Signal) -> Signal:
    first, last = layer.timings
    y = _conv_norm(step, signal, layer.depth_conv1, first, "conv1")
    y = y.replaced(layer.point_conv1(layer.act(y.x)))
    y = y.replaced(layer.act(layer.point_conv2(y.x)))
    y = _conv_norm(step, y, layer.depth_conv2, last, "conv2")
    return step.add(y, step.residual(signal, layer.residual, last.stride))


def _attention(layer: att.AttentionLayer, step: Step, signal: Signal) -> Signal:
    if isinstance(layer.att, att.FrameAttention):
        statistics = signal.replaced(layer.att.statistics(signal.x))
        gate = step.conv(statistics, layer.att.conv, layer.att.timings[0])
        late = step.delayed(signal, gate.frames.lag)
        gated, signal = late.replaced(late.x * gate.x), late
    elif layer.att.causal:
        gated = signal.replaced(layer.att.gated(signal.x, step.mean_so_far(signal)))
    else:
        raise UserError(
            f"{type(layer.att).__name__} takes means over the whole clip, so the network cannot "
            "stream; train one with a causal att_type, e.g. -c 4101 (docs/streaming.md)"
        )
    return signal.replaced(layer.act(layer.bn(gated.x) + signal.x))


def _rt_stgcn(network: RTSTGCN, step: Step, frames: Signal) -> Signal:
    signal = frames.replaced(network.stem(split_persons(frames.x, network.num_joint)))
    for index, layer in enumerate(network.st_gcn):
        timing = layer.timings[0]
        with step.scope(f"layer{index}"):
            window = WindowSum(timing.kernel, timing.dilation)
            summed = step.window_sum(signal.replaced(layer.graph(signal.x, network.A)), window)
        signal = summed.replaced(layer.combine(summed.x, signal.x))
    return signal


TRUNKS: dict[type, Callable[..., Signal]] = {
    EfficientGCN: _efficientgcn,
    RTSTGCN: _rt_stgcn,
    STGCN: _stgcn,
}
LAYERS: dict[type, Callable[..., Signal]] = {
    nn.BatchNorm2D: _frame_wise,
    Affine: _frame_wise,  # of a folded network
    SpatialGraphLayer: _frame_wise,
    att.AttentionLayer: _attention,
    TemporalBasic: _basic,
    TemporalBottleneck: _bottleneck,
    TemporalSep: _separable,
    TemporalSG: _sandglass,
}
