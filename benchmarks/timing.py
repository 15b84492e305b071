"""What the benchmarks share: side-by-side timing, and a line about the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np


def measure(
    contenders: dict[str, tuple[Callable[[], object], int]], rounds: int
) -> dict[str, float]:
    """Print units a second of each contender: median and spread over rounds, in each of which all
    run once, one after the other; and the ratio to the first. contenders: name -> (work, units).
    Returns the medians."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (work, units) in contenders.items():
            begin = time.perf_counter()
            work()
            rates[name].append(units / (time.perf_counter() - begin))
    medians = {name: median(values) for name, values in rates.items()}
    base = next(iter(medians.values()))
    for name, values in rates.items():
        middle = medians[name]
        spread = f"{min(values):.4g} to {max(values):.4g}"
        print(f"  {name:28s} {middle:10.4g} /s   {spread:20s}   {middle / base:6.1f} x")
    return medians


def machine() -> str:
    """Processor, cores, load and versions, in one line."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{model}, {os.cpu_count()} cores, load {load}; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {platform.system()} {platform.release()}"
    )
