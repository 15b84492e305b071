"""Speed of what a clip passes through: features and graph convolution, each beside the plain
writing of the same thing, in one run.

python benchmarks/bench_network.py
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timing import machine, measure

from dataset.features import clip_tensor
from dataset.graph import adjacency
from dataset.skeletons import skeleton
from errors import run_command
from utils import prepare_process

FRAMES, PERSONS = 288, 2
NTU_25 = skeleton("ntu-25")


def plain_features(clip: np.ndarray) -> np.ndarray:
    """J, V, B with loops over joints and frames, as public code writes them: (3, 6, T, V, M)."""
    c, t, v, m = clip.shape
    joint, velocity, bone = (np.zeros((2 * c, t, v, m)) for _ in range(3))
    joint[:c] = clip
    for i in range(v):
        joint[c:, :, i] = clip[:, :, i] - clip[:, :, 1]
    for i in range(t - 2):
        velocity[:c, i] = clip[:, i + 1] - clip[:, i]
        velocity[c:, i] = clip[:, i + 2] - clip[:, i]
    for i, parent in enumerate(NTU_25.parents):
        bone[:c, :, i] = clip[:, :, i] - clip[:, :, parent]
    length = np.sqrt((bone[:c] ** 2).sum(axis=0)) + 0.0001
    for i in range(c):
        bone[c + i] = np.arccos(bone[i] / length)
    return np.stack([joint, velocity, bone])


def measure_features(rounds: int) -> None:
    """One core: clips of 288 frames and two persons, raw to the network's input."""
    clip = np.random.RandomState(0).standard_normal((3, FRAMES, 25, PERSONS)).astype(np.float32)
    ours = clip_tensor(clip, NTU_25, "JVB").reshape(PERSONS, 25, 3, 6, FRAMES)
    assert np.abs(ours.transpose(2, 3, 4, 1, 0) - plain_features(clip)).max() < 1e-5
    print("features, clips a second on one core")
    measure(
        {
            "plain loops": (lambda: [plain_features(clip) for _ in range(10)], 10),
            "ours": (lambda: [clip_tensor(clip, NTU_25, "JVB") for _ in range(50)], 50),
        },
        rounds,
    )


def measure_graph_conv(rounds: int) -> None:
    """Forward and backward of one graph convolution, (32, 64, 288, 25) to 64 channels, K = 3."""
    import paddle

    from model.graph_conv import graph_conv

    x = paddle.randn([32, 64, FRAMES, 25])
    x.stop_gradient = False
    graph = paddle.to_tensor(adjacency(NTU_25, "spatial"), stop_gradient=False)
    weight = paddle.randn([3 * 64, 64, 1, 1])
    bias = paddle.randn([3 * 64])
    weight.stop_gradient = bias.stop_gradient = False

    def einsum_5d() -> paddle.Tensor:
        y = paddle.nn.functional.conv2d(x, weight, bias)
        y = y.reshape([32, 3, 64, FRAMES, 25])  # (P, K, C', T, V)
        return paddle.einsum("nkctv,kvw->nctw", y, graph)

    def aggregate_first() -> paddle.Tensor:
        return graph_conv(x, graph, weight, bias)

    def both_ways(form: Callable[[], paddle.Tensor]) -> Callable[[], None]:
        return lambda: form().sum().backward()

    difference = float((einsum_5d() - aggregate_first()).abs().max())
    print(f"graph convolution, forward and backward a second (largest difference {difference:.1e})")
    measure(
        {
            "5-D einsum": (both_ways(einsum_5d), 1),
            "ours, 4-D": (both_ways(aggregate_first), 1),
        },
        rounds,
    )


def measure_step(rounds: int) -> None:
    """One training step of EfficientGCN-B0 (config 2001) on 4 clips of two persons, in seconds."""
    import paddle

    import configs
    from dataset.protocols import data_spec
    from model.build import build_network

    config = configs.load("2001")
    network = build_network(config, data_spec(config.dataset, config.data.own_layout), PERSONS)
    network.train()
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, network.parameters(), use_nesterov=True)
    clips, labels = paddle.randn([4, 50, 18, FRAMES]), paddle.to_tensor([0, 1, 2, 3])
    seconds = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        paddle.nn.functional.cross_entropy(network(clips), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
        seconds.append(time.perf_counter() - begin)
    middle, low, high = np.median(seconds[1:]), min(seconds[1:]), max(seconds[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB on Linux
    print(
        f"training step of 2001, 4 clips: {middle:.2f} s ({low:.2f} to {high:.2f}); "
        f"peak memory of this process {peak:.1f} GB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no_cpu_setup", action="store_true", help="leave threads, malloc alone")
    args = parser.parse_args()
    prepare_process(not args.no_cpu_setup)
    print(f"{machine()}; CPU set-up {'off' if args.no_cpu_setup else 'on'}")
    measure_step(args.rounds)  # first, so that the peak memory is its own
    measure_features(args.rounds)
    measure_graph_conv(args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
