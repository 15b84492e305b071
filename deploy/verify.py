"""Proofs about a written static model: what is in its program, and that it says what the network
says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.meta import StaticMeta
from deploy.paddle_engine import read_program

MAX_RANK = 4
FORBIDDEN_OPS = ("einsum", "batch_norm", "dropout")


@dataclass(frozen=True)
class ProgramFacts:
    """ops: type -> how often. max_rank: of any tensor. problems: what breaks the 4-D promise."""

    ops: dict[str, int]
    max_rank: int
    problems: list[str]


def inspect_program(model_file: Path) -> ProgramFacts:
    """Walk every operator and tensor of a .pdmodel file."""
    program = read_program(model_file)
    ops: dict[str, int] = {}
    ranks: dict[str, int] = {}
    for block in program.blocks:
        for op in block.ops:
            ops[op.type] = ops.get(op.type, 0) + 1
            used = set(op.input_arg_names + op.output_arg_names) - {"feed", "fetch"}
            if "XShape" in op.output_names:  # a shape for the backward pass; holds no numbers
                used -= set(op.output("XShape"))
            ranks.update({name: len(block.var(name).shape) for name in used})
    problems = [f"{name} has rank {rank}" for name, rank in ranks.items() if rank > MAX_RANK]
    problems += [f"operator {op}" for op in FORBIDDEN_OPS if op in ops]
    return ProgramFacts(ops, max(ranks.values()), problems)


@dataclass(frozen=True)
class Trial:
    """clips: whole, for the network. feeds: the same for the static model."""

    clips: np.ndarray
    feeds: dict[str, np.ndarray]


def trial_clips(
    clip_shape: list[int], batch_sizes: tuple[int, ...], meta: StaticMeta
) -> list[Trial]:
    """Random clips (M*V, I*C, T) of several batch sizes. Where tails may be cut, those of the last
    size have a constant one: whole for the network, as short as may be for the static model."""
    rng = np.random.RandomState(0)
    shapes = [(size, *clip_shape) for size in batch_sizes]
    wholes = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    trials = [Trial(clips, _feeds(clips, meta)) for clips in wholes]
    if meta.tail_stride:
        clips = wholes[-1]
        real = clip_shape[-1] // 4
        clips[..., real:] = clips[..., -1:]
        frames = -(-real // meta.tail_stride) * meta.tail_stride + meta.tail_margin
        trials[-1] = Trial(clips, _feeds(clips[..., : min(frames, clip_shape[-1])], meta))
    return trials


def _feeds(clips: np.ndarray, meta: StaticMeta) -> dict[str, np.ndarray]:
    if not meta.tail_stride:
        return {"clips": clips}
    share = 1 - clips.shape[-1] / meta.num_frame
    return {"clips": clips, "cut": np.full((len(clips), 1, 1, 1), share, np.float32)}


def largest_difference(
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]],
    reference: Callable[[np.ndarray], list[np.ndarray]],
    trials: list[Trial],
) -> list[tuple[float, float]]:
    """(largest absolute difference, largest absolute value) of each output over all trials."""
    found: list[tuple[float, float]] = []
    for trial in trials:
        expected, got = reference(trial.clips), run(trial.feeds)
        now = [(np.abs(e - g).max(), np.abs(e).max()) for e, g in zip(expected, got)]
        found = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(now, found or now)]
    return [(float(difference), float(scale)) for difference, scale in found]
