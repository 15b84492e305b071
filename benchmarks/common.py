"""What the benchmarks share: command line, Python processes, models, measuring side by side."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from configs.schema import Config
from dataset.protocols import data_spec
from errors import UserError

if TYPE_CHECKING:
    from model.network import ClipNetwork

ROOT = Path(__file__).resolve().parent.parent
Contenders = dict[str, tuple[Callable[[], object], int]]  # name -> (work, units of work)


def new_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A command line with --rounds, which has that default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    return parser


def check_least(least: int, args: argparse.Namespace, *names: str) -> None:
    """Raises UserError where an option of these names is, or contains, a smaller number."""
    for name in names:
        if np.min(getattr(args, name)) < least:
            raise UserError(f"--{name} is {getattr(args, name)}; allowed: {least} or more")


def measure(contenders: Contenders, rounds: int) -> dict[str, float]:
    """Measure throughput: in every round, each contender runs once. Prints the median over the
    rounds, the range, and the ratio to the first contender. Returns the medians, in units/s."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (work, units) in contenders.items():
            begin = time.perf_counter()
            work()
            rates[name].append(units / (time.perf_counter() - begin))
    medians = {name: median(values) for name, values in rates.items()}
    base = next(iter(medians.values()))
    for name, values in rates.items():
        spread = f"{min(values):.4g} to {max(values):.4g}"
        print(
            f"  {name:28s} {medians[name]:10.4g} /s   {spread:20s}   {medians[name] / base:6.1f} x"
        )
    return medians


def seconds_text(values: Sequence[float]) -> str:
    """Median and range of seconds."""
    return f"{median(values):6.2f} s ({min(values):.2f} to {max(values):.2f})"


def machine(*packages: str) -> str:
    """Processor, cores, load and versions, also of these installed packages, in one line."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    versions = [f"{name} {version(name)}" for name in ("numpy", *packages)]
    return (
        f"{model}, {os.cpu_count()} cores, load {load}; Python {platform.python_version()}, "
        f"{', '.join(versions)}, {platform.system()} {platform.release()}"
    )


def run_python(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a Python process. env: added to the environment.

    Raises UserError with the process's last line for a user error
    (exit code 2), and RuntimeError with its standard error for any other failure.
    """
    environ = {**os.environ, **(env or {})}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().rpartition("\n")[2])
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} exited with code {done.returncode}:\n{done.stderr}"
        )
    return done.stdout


def export_per_person(config: str, folder: Path, settings: Sequence[str] = ()) -> Path:
    """Export a configuration by export.py --per_person, and return its .pdmodel. settings: of
    --set."""
    command = [str(ROOT / "export.py"), "-c", config, "--per_person", "--save_dir", str(folder)]
    run_python(*command, *(["--set", *settings] if settings else []))
    return next(folder.glob("*.pdmodel"))


def network_of(config: Config, persons: int) -> ClipNetwork:
    """The network of a configuration with random weights. Imports Paddle."""
    from model.build import build_network

    return build_network(config, data_spec(config.dataset, config.data.own_layout), persons)
