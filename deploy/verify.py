"""Proofs about a written static model: what is in its program, and that it says what the network
says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.predictor import read_program

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


def largest_difference(
    run: Callable[[np.ndarray], list[np.ndarray]],
    reference: Callable[[np.ndarray], list[np.ndarray]],
    input_shape: list[int],
    batch_sizes: tuple[int, ...],
) -> list[tuple[float, float]]:
    """(largest absolute difference, largest absolute value) of each output over random clips of
    several batch sizes. input_shape: without the batch axis."""
    rng = np.random.RandomState(0)
    found: list[tuple[float, float]] = []
    for size in batch_sizes:
        clips = rng.standard_normal((size, *input_shape)).astype(np.float32)
        expected, got = reference(clips), run(clips)
        now = [(np.abs(e - g).max(), np.abs(e).max()) for e, g in zip(expected, got)]
        found = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(now, found or now)]
    return [(float(difference), float(scale)) for difference, scale in found]
