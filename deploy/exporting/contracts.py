"""The contracts of static models: their inputs, outputs, and what export allows for them.

clips   clips (N, M*V, I*C, T), and cut (N, 1, 1, 1) where clips may be truncated (model/tail.py)
        -> logits (N, num_class), and feature (P, C', T', V) if requested
ailia   data (1, C, T, V, M), T and M dynamic
        -> output (1, num_class, T', V, M), feature (1, C', T', V, M)
stream  frames (P, V, I*C, chunk), mask (P, 1, S, 1), and the states, each (P, C, frames, V)
        -> logits (P, num_class), or (P, num_class, positions) where a step has several, and the
        states after this step (model/streaming/)

All tensors of the first and the last have rank 4. The second follows a public sample of ST-GCN:
rank 5 at the inputs and outputs, rank 4 inside; the mean of `output` over T', V and M is the
clip's logits.

A contract is one row of CONTRACTS and a wrapper (deploy/exporting/wrappers.py). Wrappers need
Paddle and are imported by export only: inference reads shapes from the table and starts without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.schema import Config
from deploy.exporting.formats import Shape, Sizes
from errors import UserError
from model.streaming.state import FRAMES, MASK

if TYPE_CHECKING:
    from deploy.exporting.wrappers import Wrapper
    from model.network import ClipNetwork


@dataclass(frozen=True)
class ExportOptions:
    """format: a key of FORMATS (deploy/exporting/formats.py). contract: a key of CONTRACTS.
    batch_size: fixed N; 0: dynamic. per_person: the input holds one person. with_feature: adds the
    output `feature`. whole_clips: T is static, and clips cannot be truncated. dilated: a streaming
    network gives an answer for every frame. chunk: frames of its step; 0: the fewest."""

    format: str = "paddle"
    contract: str = "clips"
    batch_size: int = 0
    per_person: bool = False
    with_feature: bool = False
    whole_clips: bool = False
    dilated: bool = False
    chunk: int = 0


@dataclass(frozen=True)
class Contract:
    """summary: what it takes and gives, for messages; follows its name.
    inputs: sizes of the model -> shape of each input, in order.
    outputs: names, in order, without `feature` where that is an option.
    wrapper: (network, options) -> the layer that is traced.
    batch_outputs: those whose first axis is that of the input's batch; other dynamic axes get
    made-up names in ONNX files.
    border_rank: largest rank of inputs and outputs. Inside the graph it is always 4.
    options: fields of ExportOptions that it allows, beyond format and contract.
    truncates: clips may be truncated, where the network allows it.
    predictor: `deploy.predictor.Predictor` and infer.py can run it.
    accepts: whether it allows a configuration. networks: which ones it allows, for messages."""

    summary: str
    inputs: Callable[[Sizes], dict[str, Shape]]
    outputs: tuple[str, ...]
    wrapper: Callable[[ClipNetwork, ExportOptions], Wrapper]
    batch_outputs: Callable[[str], bool] = lambda name: False
    border_rank: int = 4
    options: frozenset[str] = frozenset()
    truncates: bool = False
    predictor: bool = False
    accepts: Callable[[Config], bool] = lambda config: True
    networks: str = "every network"


def _clip_inputs(sizes: Sizes) -> dict[str, Shape]:
    batch, joints = sizes.batch or "batch", sizes.persons * sizes.joints
    if not sizes.tail_stride:
        return {"clips": (batch, joints, sizes.channels, sizes.frames)}
    return {"clips": (batch, joints, sizes.channels, "frames"), "cut": (batch, 1, 1, 1)}


def _clip_wrapper(network: ClipNetwork, options: ExportOptions) -> Wrapper:
    from deploy.exporting.wrappers import ClipWrapper

    return ClipWrapper(network, options.with_feature)


def _ailia_wrapper(network: ClipNetwork, options: ExportOptions) -> Wrapper:
    from deploy.exporting.wrappers import ScoreMaps

    return ScoreMaps(network)


def _stream_inputs(sizes: Sizes) -> dict[str, Shape]:
    batch, plan = sizes.batch or "batch", sizes.plan
    assert plan is not None  # of every model of this contract
    shapes: dict[str, Shape] = {FRAMES: (batch, sizes.joints, sizes.channels, plan.chunk)}
    if plan.slots:
        shapes[MASK] = (batch, 1, sum(slot.frames.count for slot in plan.slots), 1)
    return {**shapes, **{name: (batch, *shape) for name, shape in plan.states.items()}}


def _stream_wrapper(network: ClipNetwork, options: ExportOptions) -> Wrapper:
    from deploy.exporting.wrappers import StreamWrapper

    return StreamWrapper(network, options.dilated, options.chunk)


CONTRACTS: dict[str, Contract] = {
    "clips": Contract(
        summary="takes a batch of clips and gives logits",
        inputs=_clip_inputs,
        outputs=("logits",),
        wrapper=_clip_wrapper,
        batch_outputs=lambda name: name == "logits",
        options=frozenset({"batch_size", "per_person", "with_feature", "whole_clips"}),
        truncates=True,
        predictor=True,
    ),
    "ailia": Contract(
        summary="takes one clip of any T and M and gives its feature",
        inputs=lambda sizes: {"data": (1, sizes.channels, "frames", sizes.joints, "persons")},
        outputs=("output", "feature"),
        wrapper=_ailia_wrapper,
        border_rank=5,
        accepts=lambda config: config.model_type == "ST-GCN" and len(config.data.inputs) == 1,
        networks="ST-GCN with one input branch, e.g. -c 1005",
    ),
    "stream": Contract(
        summary="takes the next frames of one person and gives logits",
        inputs=_stream_inputs,
        outputs=("logits",),
        wrapper=_stream_wrapper,
        batch_outputs=lambda name: True,
        options=frozenset({"batch_size", "dilated", "chunk"}),
    ),
}


def check_options(config: Config, options: ExportOptions) -> None:
    """Raises UserError where the contract does not allow the configuration or an option."""
    name, contract = options.contract, CONTRACTS[options.contract]
    if not contract.accepts(config):
        raise UserError(
            f"--contract {name} is for {contract.networks}; configuration {config.name} is "
            f"{config.model_type} of {config.data.inputs}"
        )
    allowed = {"format", "contract", *contract.options}
    refused = [f.name for f in dataclasses.fields(options) if f.name not in allowed]
    if any(getattr(options, option) for option in refused):
        flags = ", ".join(f"--{option}" for option in refused)
        raise UserError(f"--contract {name} {contract.summary}; leave out {flags}")
