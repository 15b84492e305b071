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
import json
import os
import resource
import sys
import tempfile
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
from configs.model import EfficientGCNArgs, STGCNArgs
from errors import UserError, run_command
from utils import prepare_process

if TYPE_CHECKING:
    from torch import nn

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


def save_start(args: argparse.Namespace) -> None:
    """Write the initial weights of all variants and the sizes that PyTorch's network needs."""
    prepare_process()
    from model.build import rescale_blocks

    config = configs.load(args.code)
    network, model = common.network_of(config, args.persons), config.model_args
    np.savez(args.start, **{name: value.numpy() for name, value in network.state_dict().items()})
    blocks: Sequence[tuple[float, ...]] = model.block_args
    if isinstance(model, EfficientGCNArgs):
        blocks = rescale_blocks(model.block_args, 0, model.scale_args)
    sizes = {"channels": network.branch_channels, "blocks": blocks}
    Path(args.start + ".json").write_text(json.dumps(sizes), encoding="utf-8")


def load_sizes(start: str) -> dict[str, list]:
    """Channels of the input branches, and scaled blocks."""
    return json.loads(Path(start + ".json").read_text(encoding="utf-8"))


def paddle_variant(args: argparse.Namespace) -> Variant:
    """Our network, in our form or in the plain one."""
    prepare_process(args.variant not in (OFF, PLAIN))
    import paddle

    if args.variant == PLAIN:
        from benchmarks.plain_networks import use_plain_forms

        use_plain_forms()
    network = common.network_of(configs.load(args.code), args.persons)
    with np.load(args.start) as weights:
        network.set_state_dict({name: paddle.to_tensor(weights[name]) for name in weights})
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


def torch_network(args: argparse.Namespace) -> nn.Module:
    """The network in PyTorch, with the initial weights."""
    from benchmarks.torch_networks import STGCN, EfficientGCN, load_ours

    model, sizes = configs.load(args.code).model_args, load_sizes(args.start)
    with np.load(args.start) as file:
        weights = dict(file)
    network: nn.Module
    if isinstance(model, STGCNArgs):
        network = STGCN(
            sizes["channels"][0],
            len(weights["fcn.bias"]),
            weights["A"],
            persons=args.persons,
            drop_prob=model.drop_prob,
            kernel_size=model.kernel_size,
            blocks=sizes["blocks"],
        )
    else:
        network = EfficientGCN(
            sizes["channels"],
            len(weights["classifier.fc.bias"]),
            weights["input_branches.0.stem_scn.conv.A"],
            persons=args.persons,
            stem_channel=model.stem_channel,
            blocks=sizes["blocks"],
            fusion_stage=model.fusion_stage,
            drop_prob=model.drop_prob,
            kernel=model.kernel_size[0],
            reduct_ratio=model.reduct_ratio,
        )
    load_ours(network, weights)
    return network


def torch_variant(args: argparse.Namespace) -> Variant:
    """PyTorch with its default settings."""
    import torch

    network = torch_network(args)
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


def work(args: argparse.Namespace) -> None:
    """Measure one variant; print logits, wall and CPU seconds, threads and peak memory as JSON."""
    variant = (torch_variant if args.variant == TORCH else paddle_variant)(args)
    rng = np.random.RandomState(0)
    channels = sum(load_sizes(args.start)["channels"])
    shape = (args.batch, args.persons * 25, channels, args.frames)
    clips = rng.standard_normal(shape).astype(np.float32)
    labels = np.arange(args.batch, dtype=np.int64) % 60
    report: dict[str, Any] = {"logits": variant.logits(clips[:1]).tolist()}
    seconds, cpu_seconds = [], []
    for _ in range(args.steps + 1):
        begin, cpu = time.perf_counter(), time.process_time()
        variant.step(clips, labels)
        seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - cpu)
    report.update(seconds=seconds[1:], cpu=cpu_seconds[1:], threads=variant.threads)
    report["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB on Linux
    print(json.dumps(report))


def run_process(args: argparse.Namespace, start: str, code: str, variant: str) -> dict[str, Any]:
    """`work` in a new process, or `save_start` where variant is empty."""
    command = [__file__, "--code", code, "--start", start, "--variant", variant]
    for name in ("batch", "frames", "persons", "steps"):
        command += [f"--{name}", str(getattr(args, name))]
    output = common.run_python(*command, env=MALLOC.get(variant))
    return json.loads(output.splitlines()[-1]) if variant else {}


def compare(args: argparse.Namespace, code: str, variants: list[str]) -> None:
    """Print one row per variant: median and range over all timed steps of all rounds."""
    reports: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    with tempfile.TemporaryDirectory() as folder:
        start = str(Path(folder) / "start.npz")
        run_process(args, start, code, "")
        for _ in range(args.rounds):
            for variant in variants:
                report = run_process(args, start, code, variant)
                first = (reports[variants[0]] or [report])[0]["logits"]
                difference = np.abs(np.subtract(report["logits"], first)).max()
                if not difference < 1e-3 * max(np.abs(first).max(), 1.0):
                    raise RuntimeError(f"{variant}: the logits differ by {difference}")
                reports[variant].append(report)
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
    for name in ("--code", "--start", "--variant"):  # of the process of one variant
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.check_least(1, args, "batch", "frames", "persons", "steps", "rounds")
    if args.torch and importlib.util.find_spec("torch") is None:
        raise UserError("--torch needs PyTorch, which is not installed; pip install torch")
    return args


def main() -> int:
    args = arguments()
    if args.code is not None:
        work(args) if args.variant else save_start(args)
        return 0
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
