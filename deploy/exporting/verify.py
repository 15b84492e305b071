"""Proofs about a written static model: what is in its program, and that it says what the network
says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.engines.engine import CPU_ENGINES, open_engine
from deploy.engines.paddle_engine import read_pir, read_program
from deploy.exporting.contracts import Trial
from errors import UserError

MAX_RANK = 4
UNKNOWN = -1  # a rank that a file does not tell
FORBIDDEN_OPS = ("einsum", "batch_norm", "dropout")
TOLERANCE = 1e-4  # difference allowed, relative to the largest number of an output (noise: 1e-6)


@dataclass(frozen=True)
class ProgramFacts:
    """ops: type -> how often. max_rank: of any tensor inside. problems: what breaks the 4-D
    promise."""

    ops: dict[str, int]
    max_rank: int
    problems: list[str]


def inspect_program(model_file: Path, border_rank: int = MAX_RANK) -> ProgramFacts:
    """Walk every operator and tensor of a .pdmodel, .json or .onnx file.

    border_rank: axes allowed to the model's inputs and outputs.
    """
    if model_file.suffix == ".onnx":
        from deploy.exporting.graph_check import inspect_onnx

        return inspect_onnx(model_file, border_rank)
    if model_file.suffix == ".json":
        return _inspect_pir(model_file, border_rank)
    program = read_program(model_file)
    ops: dict[str, int] = {}
    ranks: dict[str, int] = {}
    border: set[str] = set()
    for block in program.blocks:
        for op in block.ops:
            ops[op.type] = ops.get(op.type, 0) + 1
            used = set(op.input_arg_names + op.output_arg_names) - {"feed", "fetch"}
            if op.type in ("feed", "fetch"):
                border |= used
            if "XShape" in op.output_names:  # a shape for the backward pass; holds no numbers
                used -= set(op.output("XShape"))
            ranks.update({name: len(block.var(name).shape) for name in used})
    forbidden = [f"operator {op}" for op in FORBIDDEN_OPS if op in ops]
    return facts_of(ops, ranks, border, border_rank, forbidden)


def _inspect_pir(model_file: Path, border_rank: int) -> ProgramFacts:
    """Of the operators of the only block; ours have no branches."""
    ops: dict[str, int] = {}
    ranks: dict[str, int] = {}
    border: set[str] = set()
    program = read_pir(model_file)  # held: operators do not keep their program alive
    operators = program.global_block().ops
    fetched = [v for op in operators if op.name() == "pd_op.fetch" for v in op.operands_source()]
    for index, op in enumerate(operators):
        name = op.name().split(".", 1)[1]  # pd_op.conv2d, builtin.parameter
        ops[name] = ops.get(name, 0) + 1
        for number, value in enumerate(op.results()):
            if value.is_dense_tensor_type():  # else a list of what other operators gave
                key = f"result {number} of operator {index} ({name})"
                ranks[key] = len(value.shape)
                if name in ("feed", "fetch") or any(value.is_same(v) for v in fetched):
                    border.add(key)
    found = [f"operator {op}" for op in ops if op.rstrip("_") in FORBIDDEN_OPS]
    return facts_of(ops, ranks, border, border_rank, found)


def facts_of(
    ops: dict[str, int], ranks: dict[str, int], border: set[str], border_rank: int, found: list[str]
) -> ProgramFacts:
    """ranks: of every tensor. border: names of the inputs and outputs. found: other problems."""
    inside = {name: rank for name, rank in ranks.items() if name not in border}
    problems = [f"{name} has rank {rank}" for name, rank in inside.items() if rank > MAX_RANK]
    problems += [f"{name} has no known rank" for name, rank in ranks.items() if rank == UNKNOWN]
    problems += [
        f"{name} has rank {ranks[name]}" for name in sorted(border) if ranks[name] > border_rank
    ]
    return ProgramFacts(ops, max(inside.values()), problems + found)


def prove(
    model_file: Path, trials: list[Trial], outputs: list[str], border_rank: int, cpu_threads: int
) -> None:
    """Raises UserError where a written model breaks the promise of rank 4 and no einsum, or where
    an engine's answer to a trial is not the network's."""
    facts = inspect_program(model_file, border_rank)
    operators = sum(facts.ops.values())
    logging.info("Program: %d operators, largest rank %d", operators, facts.max_rank)
    if facts.problems:
        raise UserError(
            f"{model_file.name} breaks the 4-D promise: {'; '.join(facts.problems[:5])}"
        )
    for name in CPU_ENGINES[model_file.suffix]:
        engine = open_engine(model_file, None, name, cpu_threads)
        found = largest_difference(engine.run, trials)
        if len(found) != len(outputs):
            raise UserError(f"{model_file.name}, run by engine {name}: not {len(outputs)} outputs")
        for output, (difference, scale) in zip(outputs, found):
            allowed = TOLERANCE * scale
            logging.info(
                "Largest difference of engine %s from the network: %.2e at a scale of %.2e "
                "(%s, allowed %.0e)", name, difference, scale, output, allowed
            )  # fmt: skip
            if not difference <= allowed:
                raise UserError(
                    f"{model_file.name}, run by engine {name}, differs from the network by "
                    f"{difference:.2e} ({output}), allowed {allowed:.0e}; nothing was exported"
                )


def largest_difference(
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]], trials: list[Trial]
) -> list[tuple[float, float]]:
    """(largest absolute difference, largest absolute value) of each output over all trials; the
    difference is infinite where shapes differ."""
    found: list[tuple[float, float]] = []
    for trial in trials:
        now = [_difference(e, g) for e, g in zip(trial.expected, run(trial.feeds))]
        found = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(now, found or now)]
    return [(float(difference), float(scale)) for difference, scale in found]


def _difference(expected: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    same = expected.shape == got.shape
    return np.abs(expected - got).max() if same else np.inf, np.abs(expected).max()
