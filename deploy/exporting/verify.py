"""The numerical proof: every engine gives what the network gives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.engines.engine import CPU_ENGINES, load_engine
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
        engine = load_engine(model_file, None, name, cpu_threads)
        runs = [list(zip(dummy.expected, engine.run(dummy.feeds))) for dummy in inputs]
        if any(len(run) != len(outputs) for run in runs):
            raise UserError(f"{model_file.name}, run by engine {name}: not {len(outputs)} outputs")
        for output, pairs in zip(outputs, zip(*runs)):
            difference = float(np.max([_difference(expected, got) for expected, got in pairs]))
            scale = float(np.max([np.abs(expected).max() for expected, _ in pairs]))
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


def _difference(expected: np.ndarray, got: np.ndarray) -> float:
    """Largest absolute one; infinite where shapes differ."""
    return float(np.abs(expected - got).max()) if expected.shape == got.shape else float("inf")
