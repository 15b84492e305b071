"""What the benchmarks share: command line, new processes, models, measuring side by side."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from unittest import mock

import numpy as np

from configs.schema import Config
from dataset.protocols import data_spec
from errors import UserError
from utils import prepare_process

if TYPE_CHECKING:
    from paddle import nn

ROOT = Path(__file__).resolve().parent.parent
Contenders = dict[str, tuple[Callable[[], object], int]]  # name -> (work, units of work)
Result = TypeVar("Result")


class Start(NamedTuple):
    """What all variants of a network begin with: weights by name, channels of the input branches,
    and (channels, stride) of each block, with EfficientGCN also its depth."""

    weights: dict[str, np.ndarray]
    channels: list[int]
    blocks: Sequence[tuple[int, ...]]


def new_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A command line with --rounds, which has that default; 0: without."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    return parser


def parse(parser: argparse.ArgumentParser, least: int = 1) -> argparse.Namespace:
    """The options. Raises UserError where a number is less than `least`."""
    args = parser.parse_args()
    for name, value in vars(args).items():
        numbers = value if isinstance(value, list) else [value]
        if any(type(number) is int and number < least for number in numbers):
            raise UserError(f"--{name} is {value}; allowed: {least} or more")
    return args


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
    for name, middle in medians.items():
        spread = f"{min(rates[name]):.4g} to {max(rates[name]):.4g}"
        print(f"  {name:28s} {middle:10.4g} /s   {spread:20s}   {middle / base:6.1f} x")
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


def in_process(
    work: Callable[..., Result], *args: Any, env: Mapping[str, str] | None = None
) -> Result:
    """work(*args) in a new process. env: added to its environment."""
    spawn = multiprocessing.get_context("spawn")
    with mock.patch.dict(os.environ, env or {}), ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(work, *args).result()


def multiply_adds(network: nn.Layer, *shapes: Sequence[int]) -> int:
    """Multiply-adds of the convolutions and matrix products of a network in the exported form, for
    inputs of these shapes; the second and later ones as one list. Imports Paddle."""
    import paddle
    import paddle.nn.functional as F

    from model.fold import fold_network

    conv2d, matmul, total = F.conv2d, paddle.matmul, 0

    def counted_conv2d(x: paddle.Tensor, weight: paddle.Tensor, **options: Any) -> paddle.Tensor:
        nonlocal total
        y = conv2d(x, weight, **options)
        total += y.size * weight[0].size
        return y

    def counted_matmul(x: paddle.Tensor, y: paddle.Tensor, **options: Any) -> paddle.Tensor:
        nonlocal total
        product = matmul(x, y, **options)
        total += product.size * x.shape[-1]
        return product

    network.eval()
    fold_network(network)
    first, *others = (paddle.zeros(list(shape)) for shape in shapes)
    counting = mock.patch.object(F, "conv2d", counted_conv2d)
    with paddle.no_grad(), counting, mock.patch.object(paddle, "matmul", counted_matmul):
        network(first, others) if others else network(first)
    return total


def export_per_person(config: Config, folder: Path, kind: str = "paddle") -> Path:
    """Export the network of a configuration with --per_person, and return the file that engines
    load. Without `pretrained_path`, the weights are random ones of its seed. Imports Paddle."""
    prepare_process()
    from deploy.exporting.contracts import ExportOptions
    from deploy.exporting.export import export_network
    from training.checkpoint import load_network

    spec = data_spec(config.dataset, config.data.own_layout)
    options = ExportOptions(format=kind, per_person=True)
    return export_network(load_network(config, spec), config, spec, options, folder)
