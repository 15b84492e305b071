"""Speed of features and graph convolution, each compared with its plain form.

python benchmarks/bench_network.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import common
from dataset.features import clip_tensor
from dataset.graph import adjacency
from dataset.skeletons import skeleton
from errors import run_command
from utils import prepare_process

FRAMES, PERSONS = 288, 2
NTU_25 = skeleton("ntu-25")


def plain_features(clip: np.ndarray) -> np.ndarray:
    """J, V, B with loops over joints and frames, as in public code: (3, 6, T, V, M)."""
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
    """From raw clips of 288 frames and two persons to the network's input, on one core."""
    clip = np.random.RandomState(0).standard_normal((3, FRAMES, 25, PERSONS)).astype(np.float32)
    ours = clip_tensor(clip, NTU_25, "JVB").reshape(PERSONS, 25, 3, 6, FRAMES)
    if not np.abs(ours.transpose(2, 3, 4, 1, 0) - plain_features(clip)).max() < 1e-5:
        raise RuntimeError("the features differ from those of the plain form")
    print("features on one core, throughput (clips/s)")
    contenders: common.Contenders = {
        "plain loops": (lambda: [plain_features(clip) for _ in range(10)], 10),
        "ours": (lambda: [clip_tensor(clip, NTU_25, "JVB") for _ in range(50)], 50),
    }
    common.measure(contenders, rounds)


def measure_graph_conv(rounds: int) -> None:
    """Forward and backward pass of a graph convolution, (32, 64, 288, 25) to 64 channels, K = 3."""
    import paddle

    from benchmarks import plain_networks
    from model import graph_conv

    x = paddle.randn([32, 64, FRAMES, 25])
    graph = paddle.to_tensor(adjacency(NTU_25, "spatial"))
    weight, bias = paddle.randn([3 * 64, 64, 1, 1]), paddle.randn([3 * 64])
    inputs = (x, graph, weight, bias)
    for tensor in inputs:
        tensor.stop_gradient = False

    def train(form: Callable[..., paddle.Tensor]) -> Callable[[], None]:
        return lambda: form(*inputs).sum().backward()

    plain, ours = plain_networks.graph_conv, graph_conv.graph_conv
    difference = float((plain(*inputs) - ours(*inputs)).abs().max())
    print(f"graph convolution, training passes/s (largest difference {difference:.1e})")
    common.measure({"5-D einsum": (train(plain), 1), "ours, 4-D": (train(ours), 1)}, rounds)


def main() -> int:
    parser = common.new_parser(__doc__, rounds=5)
    parser.add_argument(
        "--no_cpu_setup", action="store_true", help="skip CPU tuning (threads, malloc)"
    )
    args = common.parse(parser)
    prepare_process(not args.no_cpu_setup)
    print(f"{common.machine('paddlepaddle')}; CPU set-up {'off' if args.no_cpu_setup else 'on'}")
    measure_features(args.rounds)
    measure_graph_conv(args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
