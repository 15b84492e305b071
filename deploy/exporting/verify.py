"""The numerical proof: every engine gives what the network gives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.engines.engine import CPU_ENGINES, open_engine
from errors import UserError

TOLERANCE = 1e-4  # difference allowed, relative to the largest number of an output (noise: 1e-6)


@dataclass(frozen=True)
class DummyInput:
    """feeds: input name -> array, for a static model. expected: the outputs of the network."""

    feeds: dict[str, np.ndarray]
    expected: list[np.ndarray]


def prove(
    model_file: Path, inputs: Sequence[DummyInput], outputs: Sequence[str], cpu_threads: int
) -> None:
    """Run a model on dummy inputs by every CPU engine of its format. Raises UserError where an
    output differs from the network's."""
    for name in CPU_ENGINES[model_file.suffix]:
        engine = open_engine(model_file, None, name, cpu_threads)
        found = largest_difference(engine.run, inputs)
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
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]], inputs: Sequence[DummyInput]
) -> list[tuple[float, float]]:
    """(largest absolute difference, largest absolute value) of each output over all inputs; the
    difference is infinite where shapes differ."""
    found: list[tuple[float, float]] = []
    for dummy in inputs:
        now = [_difference(e, g) for e, g in zip(dummy.expected, run(dummy.feeds))]
        found = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(now, found or now)]
    return found


def _difference(expected: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    same = expected.shape == got.shape
    difference = float(np.abs(expected - got).max()) if same else float("inf")
    return difference, float(np.abs(expected).max())
