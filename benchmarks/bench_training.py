"""Speed and memory of one training step (forward, backward, Momentum), ours beside the plain
writing, and with --torch beside PyTorch eager with the same network, side by side in one run.

python benchmarks/bench_training.py
python benchmarks/bench_training.py --torch
python benchmarks/bench_training.py --malloc

Every variant runs in processes of its own, which take turns: one of each a round. All have the
same weights, and their logits are checked to be equal before anything is timed. "Plain" is what
public code does: convolve to K*C' channels, 5-D einsum with the graph, no CPU set-up. --malloc
compares settings of glibc's malloc for ours instead. CPU seconds (user and system) tell what
another program on the machine has disturbed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from plain_networks import write_plainly
from timing import machine

from errors import UserError, run_command

NETWORKS = {"EfficientGCN-B0": "2001", "ST-GCN": "1001"}
BASE, OFF, PLAIN, TORCH = "ours", "ours, no CPU set-up", "plain Paddle, no CPU set-up", "PyTorch"
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
# Settings of malloc in the environment keep ours out (utils.py).
MALLOC = {
    "glibc's own": {"MALLOC_ARENA_MAX": str(8 * (os.cpu_count() or 1))},  # its default
    "all kept, pad 256 MB": {**KEEP, "MALLOC_TOP_PAD_": str(256 * 2**20)},
    "256 MB, one arena": {**KEEP, "MALLOC_TOP_PAD_": str(256 * 2**20), "MALLOC_ARENA_MAX": "1"},
    "64 MB, one arena": {**KEEP, "MALLOC_TOP_PAD_": str(64 * 2**20), "MALLOC_ARENA_MAX": "1"},
    "16 MB, one arena": {**KEEP, "MALLOC_TOP_PAD_": str(16 * 2**20), "MALLOC_ARENA_MAX": "1"},
}


def our_network(code: str, persons: int) -> Any:
    import configs
    from dataset.protocols import data_spec
    from model.build import build_network

    config = configs.load(code)
    return build_network(config, data_spec(config.dataset, config.data.own_layout), persons)


def save_start(args: argparse.Namespace) -> None:
    """The weights that all variants start from, and what PyTorch must know of the network."""
    import configs
    from model.build import rescale_blocks
    from utils import prepare_process

    prepare_process()
    model = configs.load(args.code).model_args
    network = our_network(args.code, args.persons)
    np.savez(args.start, **{name: value.numpy() for name, value in network.state_dict().items()})
    blocks = [list(block) for block in model.block_args]
    if args.code == NETWORKS["EfficientGCN-B0"]:
        blocks = [list(b) for b in rescale_blocks(model.block_args, 0, model.scale_args)]
    Path(args.start + ".json").write_text(json.dumps(blocks), encoding="utf-8")


def paddle_step(args: argparse.Namespace) -> tuple[Callable, Callable]:
    """(logits of clips in evaluation, one training step) of our network, plain or not."""
    from utils import prepare_process

    prepare_process(args.variant not in (OFF, PLAIN))
    import paddle

    if args.variant == PLAIN:
        write_plainly()
    network = our_network(args.code, args.persons)
    with np.load(args.start) as weights:
        network.set_state_dict(dict(weights))
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

    return logits, step


def torch_step(args: argparse.Namespace) -> tuple[Callable, Callable]:
    """The same of PyTorch, which runs as it comes."""
    import torch
    from torch_networks import STGCN, EfficientGCN, load_ours

    import configs

    model = configs.load(args.code).model_args
    blocks = json.loads(Path(args.start + ".json").read_text(encoding="utf-8"))
    with np.load(args.start) as file:
        weights = dict(file)
    if args.code == NETWORKS["ST-GCN"]:
        network = STGCN(
            3,
            len(weights["fcn.bias"]),
            weights["A"],
            persons=args.persons,
            drop_prob=model.drop_prob,
            kernel_size=model.kernel_size,
            blocks=blocks,
        )
    else:
        network = EfficientGCN(
            [6] * 3,
            len(weights["classifier.fc.bias"]),
            weights["input_branches.0.stem_scn.conv.A"],
            persons=args.persons,
            stem_channel=model.stem_channel,
            blocks=blocks,
            fusion_stage=model.fusion_stage,
            drop_prob=model.drop_prob,
            window=model.kernel_size[0],
            reduct_ratio=model.reduct_ratio,
        )
    load_ours(network, weights)
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

    return logits, step


def work(args: argparse.Namespace) -> None:
    """What one process does: print logits, seconds, CPU seconds and peak memory as JSON."""
    logits, step = (torch_step if args.variant == TORCH else paddle_step)(args)
    channel = 3 if args.code == NETWORKS["ST-GCN"] else 18
    rng = np.random.RandomState(0)
    shape = (args.batch, args.persons * 25, channel, args.frames)
    clips = rng.standard_normal(shape).astype(np.float32)
    labels = np.arange(args.batch, dtype=np.int64) % 60
    report: dict[str, Any] = {"logits": logits(clips[:1]).tolist(), "seconds": [], "cpu": []}
    for _ in range(args.steps + 1):
        begin, cpu = time.perf_counter(), time.process_time()
        step(clips, labels)
        report["seconds"].append(time.perf_counter() - begin)
        report["cpu"].append(time.process_time() - cpu)
    report["seconds"], report["cpu"] = report["seconds"][1:], report["cpu"][1:]
    if args.variant == TORCH:
        report["threads"] = importlib.import_module("torch").get_num_threads()
    else:
        flag = "FLAGS_paddle_num_threads"
        report["threads"] = importlib.import_module("paddle").get_flags(flag)[flag]
    report["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB on Linux
    print(json.dumps(report))


def run_process(args: argparse.Namespace, start: str, code: str, variant: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--code", code, "--start", start]
    command += ["--variant", variant]
    for name in ("batch", "frames", "persons", "steps"):
        command += [f"--{name}", str(getattr(args, name))]
    env = {**os.environ, **MALLOC.get(variant, {})}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{variant}: its process ended with {done.returncode}:\n{done.stderr}")
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if variant else {}


def compare(args: argparse.Namespace, code: str, variants: list[str]) -> None:
    """Print a row a variant: medians and spread over all timed steps of all rounds."""
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
                    raise RuntimeError(f"{variant}: its logits differ by {difference}")
                reports[variant].append(report)
    base = median([s for report in reports[variants[0]] for s in report["seconds"]])
    for variant, runs in reports.items():
        seconds = [s for report in runs for s in report["seconds"]]
        cpu = median([s for report in runs for s in report["cpu"]])
        memory = max(report["memory"] for report in runs)
        print(
            f"  {variant:30s} {median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
            f"   CPU {cpu:6.2f} s   peak {memory:.2f} GB   "
            f"threads {runs[0]['threads']}   {median(seconds) / base:5.2f} x",
            flush=True,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, help="clips a step")
    parser.add_argument("--frames", type=int, default=144)
    parser.add_argument("--persons", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="timed steps a process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(NETWORKS), help="one network of the two")
    parser.add_argument("--torch", action="store_true", help="PyTorch too; it must be installed")
    parser.add_argument("--malloc", action="store_true", help="settings of malloc instead")
    for name in ("--code", "--start", "--variant"):  # what a process of a variant is told
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.batch, args.frames, args.persons, args.steps, args.rounds) < 1:
        raise UserError("--batch, --frames, --persons, --steps and --rounds must be 1 or more")
    if args.torch and importlib.util.find_spec("torch") is None:
        raise UserError("--torch needs PyTorch, which is not installed; pip install torch")
    return args


def main() -> int:
    args = arguments()
    if args.code is not None:
        work(args) if args.variant else save_start(args)
        return 0
    variants = list(MALLOC) if args.malloc else [BASE, OFF, PLAIN] + [TORCH] * args.torch
    versions = [f"{name} {_version(name)}" for name in ("paddlepaddle", "torch")[: 1 + args.torch]]
    print(f"{machine()}; {', '.join(versions)}")
    print(f"{args.rounds} rounds of {args.steps} timed steps")
    for network, code in NETWORKS.items():
        if args.only in (None, network):
            print(f"{network}: {args.batch} clips of {args.persons} x {args.frames} frames a step")
            compare(args, code, variants)
    return 0


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    sys.exit(run_command(main))
