"""Speed and memory of one training step (forward, backward, Momentum): ours, the plain form, and
with --torch the same network in PyTorch eager mode.

python benchmarks/bench_training.py
python benchmarks/bench_training.py --torch
python benchmarks/bench_training.py --malloc

In every round, each variant runs in a new process. All variants have the same weights, and their
logits are compared. "Plain" is the form of public code: convolution to K*C' channels, 5-D einsum
with the adjacency, no CPU set-up. --malloc compares settings of glibc's malloc instead, with our
form. Other programs on the machine hardly affect the CPU time (user and system).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import configs
from benchmarks import common
from benchmarks.common import Start
from configs.model import EfficientGCNArgs, STGCNArgs
from dataset.protocols import data_spec
from errors import UserError, run_command
from utils import prepare_process

if TYPE_CHECKING:
    from torch import nn

    from model.network import ClipNetwork

NETWORKS = {"EfficientGCN-B0": "2001", "ST-GCN": "1001"}
BASE, OFF, PLAIN, TORCH = "ours", "ours, no CPU set-up", "plain Paddle, no CPU set-up", "PyTorch"
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
# These environment variables take precedence over our own settings (utils.py).
MALLOC = {
    "glibc's own": {"MALLOC_ARENA_MAX": str(8 * (os.cpu_count() or 1))},  # glibc's default
    "all kept, pad 256 MB": {**KEEP, "MALLOC_TOP_PAD_": str(256 * 2**20)},
    "256 MB, one arena": {**KEEP, "MALLOC_TOP_PAD_": str(256 * 2**20), "MALLOC_ARENA_MAX": "1"},
    "64 MB, one arena": {**KEEP, "MALLOC_TOP_PAD_": str(64 * 2**20), "MALLOC_ARENA_MAX": "1"},
    "16 MB, one arena": {**KEEP, "MALLOC_TOP_PAD_": str(16 * 2**20), "MALLOC_ARENA_MAX": "1"},
}


class Variant(NamedTuple):
    """A network to measure: logits(clips) in evaluation, step(clips, labels) in training, and the
    number of threads that both use."""

    logits: Callable[[np.ndarray], np.ndarray]
    step: Callable[[np.ndarray, np.ndarray], None]
    threads: int


def start_of(code: str, persons: int) -> Start:
    """A configuration's network with random weights."""
    prepare_process()
    from model.build import rescale_blocks

    network, model = network_of(code, persons), configs.load(code).model_args
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    blocks: Sequence[tuple[int, ...]]
    if isinstance(model, EfficientGCNArgs):  # not as `Block`, whose module imports Paddle
        blocks = [tuple(b) for b in rescale_blocks(model.block_args, 0, model.scale_args)]
    else:
        blocks = model.block_args
    return Start(weights, network.branch_channels, blocks)


def network_of(code: str, persons: int) -> ClipNetwork:
    from model.build import build_network

    config = configs.load(code)
    return build_network(config, data_spec(config.dataset, config.data.own_layout), persons)


def paddle_variant(code: str, variant: str, persons: int, start: Start) -> Variant:
    """Our network, in our form or in the plain one."""
    prepare_process(variant not in (OFF, PLAIN))
    import paddle

    if variant == PLAIN:
        from benchmarks.plain_networks import use_plain_forms

        use_plain_forms()
    network = network_of(code, persons)
    network.set_state_dict({name: paddle.to_tensor(w) for name, w in start.weights.items()})
    momentum = paddle.optimizer.Momentum(0.01, 0.9, network.parameters(), use_nesterov=True)

    def logits(clips: np.ndarray) -> np.ndarray:
        network.eval()
        with paddle.no_grad():
            return network(paddle.to_tensor(clips)).numpy()

    def step(clips: np.ndarray, labels: np.ndarray) -> None:
        network.train()
        scores = network(paddle.to_tensor(clips))
        paddle.nn.functional.cross_entropy(scores, paddle.to_tensor(labels)).backward()
        momentum.step()
        momentum.clear_grad()

    flag = "FLAGS_paddle_num_threads"
    return Variant(logits, step, int(paddle.get_flags(flag)[flag]))


def torch_variant(code: str, persons: int, start: Start) -> Variant:
    """PyTorch with its default settings."""
    import torch

    from benchmarks.torch_networks import STGCN, EfficientGCN, load_ours

    model = configs.load(code).model_args
    network: nn.Module
    if isinstance(model, EfficientGCNArgs):
        network = EfficientGCN(model, persons, start)
    elif isinstance(model, STGCNArgs):
        network = STGCN(model, persons, start)
    else:
        raise TypeError(f"no PyTorch form of {type(model).__name__}")
    load_ours(network, start.weights)
    sgd = torch.optim.SGD(network.parameters(), 0.01, 0.9, nesterov=True)

    def logits(clips: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return network(torch.from_numpy(clips)).numpy()

    def step(clips: np.ndarray, labels: np.ndarray) -> None:
        network.train()
        scores = network(torch.from_numpy(clips))
        torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)).backward()
        sgd.step()
        sgd.zero_grad()

    return Variant(logits, step, torch.get_num_threads())


def work(args: argparse.Namespace, code: str, name: str, start: Start) -> dict[str, Any]:
    """Measure one variant: logits, wall and CPU seconds, threads and peak memory (GB)."""
    if name == TORCH:
        variant = torch_variant(code, args.persons, start)
    else:
        variant = paddle_variant(code, name, args.persons, start)
    shape = (args.batch, args.persons * 25, sum(start.channels), args.frames)
    clips = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    labels = np.arange(args.batch, dtype=np.int64) % 60
    report: dict[str, Any] = {"logits": variant.logits(clips[:1]), "threads": variant.threads}
    seconds, cpu_seconds = [], []
    for _ in range(args.steps + 1):
        begin, cpu = time.perf_counter(), time.process_time()
        variant.step(clips, labels)
        seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - cpu)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB on Linux
    return {**report, "seconds": seconds[1:], "cpu": cpu_seconds[1:], "memory": memory}


def compare(args: argparse.Namespace, code: str, variants: list[str]) -> None:
    """Print one row per variant: median and range over all timed steps of all rounds."""
    reports: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    start = common.in_process(start_of, code, args.persons)
    for _ in range(args.rounds):
        for variant, runs in reports.items():
            runs.append(
                common.in_process(work, args, code, variant, start, env=MALLOC.get(variant))
            )
            first = reports[variants[0]][0]["logits"]
            difference = np.abs(runs[-1]["logits"] - first).max()
            if not difference < 1e-3 * max(np.abs(first).max(), 1.0):
                raise RuntimeError(f"{variant}: the logits differ by {difference}")
    base = median([s for report in reports[variants[0]] for s in report["seconds"]])
    for variant, runs in reports.items():
        seconds = [s for report in runs for s in report["seconds"]]
        cpu = median([s for report in runs for s in report["cpu"]])
        memory, threads = max(report["memory"] for report in runs), runs[0]["threads"]
        print(
            f"  {variant:30s} {common.seconds_text(seconds)}   CPU {cpu:6.2f} s   "
            f"peak {memory:.2f} GB   threads {threads}   {median(seconds) / base:5.2f} x",
            flush=True,
        )


def arguments() -> argparse.Namespace:
    parser = common.new_parser(__doc__, rounds=3)
    parser.add_argument("--batch", type=int, default=4, help="clips per step")
    parser.add_argument("--frames", type=int, default=144)
    parser.add_argument("--persons", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="timed steps per process")
    parser.add_argument("--only", choices=sorted(NETWORKS), help="measure one network only")
    parser.add_argument("--torch", action="store_true", help="also PyTorch, if it is installed")
    parser.add_argument("--malloc", action="store_true", help="compare settings of malloc instead")
    args = common.parse(parser)
    if args.torch and importlib.util.find_spec("torch") is None:
        raise UserError("--torch needs PyTorch, which is not installed; pip install torch")
    return args


def main() -> int:
    args = arguments()
    variants = list(MALLOC) if args.malloc else [BASE, OFF, PLAIN] + [TORCH] * args.torch
    print(common.machine("paddlepaddle", *["torch"] * args.torch))
    print(f"{args.rounds} rounds of {args.steps} timed steps")
    for network, code in NETWORKS.items():
        if args.only in (None, network):
            print(
                f"{network}: {args.batch} clips of {args.persons} x {args.frames} frames per step"
            )
            compare(args, code, variants)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
