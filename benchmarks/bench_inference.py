"""Throughput of static inference from raw clips to logits: every engine, batches of 1, 16 and 64
clips of one and of two persons, and the ratio to the lower bound set by the processor's arithmetic.

python benchmarks/bench_inference.py
python benchmarks/bench_inference.py --port      also the public port's form of the network
python benchmarks/bench_inference.py --growth    also draw docs/images/inference_growth.png

Clips are synthetic: 300 frames, 80 of them real, as in NTU RGB+D on average; batches of 16 also
with 300 real frames. Models have random weights and are exported with --per_person; zero-padded
tails are truncated. After a warm-up of 64 clips, each engine runs one batch per round; printed are
the median and the range. oneDNN is several times slower than the other engines, so it runs single
clips only. The port's form runs on Paddle's native engine with its fixed batch of 16 clips. All
logits are compared first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import timeit
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import configs
from benchmarks import common
from configs.schema import Config
from dataset.protocols import data_spec
from dataset.synthetic.clips import make_clips
from deploy.engines.engine import CPU_ENGINES
from errors import run_command
from utils import prepare_process

if TYPE_CHECKING:
    from deploy.predictor import Predictor

FIGURE = common.ROOT / "docs/images/inference_growth.png"
FRAMES, REAL_FRAMES, NTU_JOINTS = 300, 80, 25
SLOW, SLOW_BATCH = "onednn", 1
PORT, PORT_BATCH = "public port's form, paddle", 16
WARM_UP = 64  # clips; OpenVINO compiles a static shape after it has occurred often
LAYOUTS = {"coco-17": 17, "ntu-25": NTU_JOINTS, "mediapipe-33": 33}
SGEMM_SIZE, SGEMM_RUNS = 1536, 8


def clips_of(batch: int, persons: int, real: int, joints: int = NTU_JOINTS) -> np.ndarray:
    """(N, 3, 300, V, 2), metres, with people in the first `real` frames."""
    return make_clips((batch, FRAMES, joints, 2), frames=real, persons=persons)


def exported(config: Config, folder: Path) -> dict[str, Predictor]:
    """Engine -> model of a configuration, exported with --per_person and verified by export."""
    from deploy.predictor import Predictor

    found: dict[str, Predictor] = {}
    for kind, suffix in (("paddle", ".pdmodel"), ("onnx", ".onnx")):
        program = common.export_per_person(config, folder, kind)
        for engine in [name for name in CPU_ENGINES[suffix] if name not in found]:
            found[engine] = Predictor.load(program, engine=engine)
    return found


def write_port_model(config: Config, target: str) -> None:
    """Write `target` + .pdmodel and .pdiparams in the form of the public Paddle port, without
    metadata: input (N, I, C, T, V, M), 5-D einsum, BatchNorm not folded, whole clips, all person
    slots, a fixed batch size. The plain forms replace ours in this process."""
    prepare_process()
    import paddle

    from benchmarks.plain_networks import use_plain_forms
    from training.checkpoint import load_network

    use_plain_forms(port_attention=True)
    spec = data_spec(config.dataset, config.data.own_layout)
    persons, joints = spec.num_person, spec.skeleton.num_joint
    network = load_network(config, spec)
    channels, frames = network.branch_channels, config.data.num_frame
    clip_shape = [PORT_BATCH, persons * joints, sum(channels), frames]

    class PortForm(paddle.nn.Layer):
        """(N, I, C, T, V, M) -> logits (N, num_class)."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return self.network(x.transpose([0, 5, 4, 1, 2, 3]).reshape(clip_shape))

    form = PortForm()
    form.eval()
    shape = [PORT_BATCH, len(channels), channels[0], frames, joints, persons]
    paddle.jit.save(form, target, [paddle.static.InputSpec(shape, "float32", "clips")])


def port_form(config: Config, folder: Path) -> Predictor:
    """The network in the public port's form, with the same random weights."""
    from deploy.predictor import Predictor

    target = str(folder / "port")
    common.in_process(write_port_model, config, target)
    return Predictor.load(f"{target}.pdmodel", engine="paddle", inputs=config.data.inputs)


def run_case(models: dict[str, Predictor], clips: np.ndarray, rounds: int) -> dict[str, float]:
    """Print and return the throughput of each engine, clips/s. Raises RuntimeError where the logits
    of two engines differ."""
    count, first = len(clips), None
    skipped = {SLOW} if count > SLOW_BATCH else set()
    skipped |= {PORT} if count != PORT_BATCH else set()
    chosen = {name: model for name, model in models.items() if name not in skipped}
    for name, model in chosen.items():
        for _ in range(1 if name in (SLOW, PORT) else -(-WARM_UP // count)):
            logits = model.run(clips).logits
        first = logits if first is None else first
        if not np.abs(logits - first).max() < 1e-3 * np.abs(first).max():
            raise RuntimeError(f"{name}: the logits differ from those of {next(iter(chosen))}")
    runs: common.Contenders = {
        name: (partial(model.run, clips), count) for name, model in chosen.items()
    }
    return common.measure(runs, rounds)


def sgemm_peak() -> float:
    """Peak throughput of a product of large float32 matrices on this machine, GFLOP/s."""
    a = np.random.RandomState(0).standard_normal((SGEMM_SIZE, SGEMM_SIZE)).astype(np.float32)
    seconds = min(timeit.repeat(lambda: a @ a, number=1, repeat=SGEMM_RUNS))
    return 2e-9 * SGEMM_SIZE**3 / seconds


def floor(config: Config, real: int) -> float:
    """Print and return the lower bound of the latency of a clip of one person, ms."""
    from model.build import build_network

    network = build_network(config, data_spec(config.dataset, config.data.own_layout), persons=1)
    margin, stride = network.geometry.tail_margin, network.geometry.stride
    frames = min(-(-real // stride) * stride + margin, config.data.num_frame)
    channels = sum(network.branch_channels)
    clip = [1, NTU_JOINTS, channels, frames]
    work, peak = 2e-9 * common.multiply_adds(network, clip), sgemm_peak()
    print(
        f"a person with {real} real frames runs {frames} frames: {work:.2f} GFLOP; NumPy's "
        f"sgemm reaches {peak:.0f} GFLOP/s: a floor of {1000 * work / peak:.1f} ms"
    )
    return 1000 * work / peak


def growth(args: argparse.Namespace, models: dict[str, Predictor], folder: Path) -> None:
    """Draw the latency of a clip of one person over batch size, real frames and joints."""
    from report import new_figure, save_figure

    quick = {name: model for name, model in models.items() if name not in (SLOW, PORT)}
    panels: dict[str, list[tuple[int, dict[str, Predictor], np.ndarray]]] = {
        "batch size": [(n, quick, clips_of(n, 1, REAL_FRAMES)) for n in (1, 2, 4, 8, 16)],
        "real frames": [(n, quick, clips_of(8, 1, n)) for n in (10, 80, 150, 300)],
        "joints": [],
    }
    for layout, joints in LAYOUTS.items():
        own = {"num_class": 60, "skeleton": layout, "num_person": 2, "max_frame": FRAMES}
        changes = {"dataset": "own", "dataset_args": {"keypoint": own}}
        known = models
        if joints != NTU_JOINTS:
            known = exported(configs.load(args.config, changes), folder / layout)
        chosen = {name: known[name] for name in quick}
        panels["joints"].append((joints, chosen, clips_of(8, 1, REAL_FRAMES, joints)))
    figure = new_figure(11, 3.4)
    for axes, (title, cases) in zip(figure.subplots(1, 3), panels.items()):
        lines: dict[str, list[tuple[int, float]]] = {name: [] for name in quick}
        for number, chosen, clips in cases:
            print(f"{title}: {number}; throughput (clips/s)")
            for name, rate in run_case(chosen, clips, args.rounds).items():
                lines[name].append((number, 1000 / rate))
        for name, points in lines.items():
            axes.plot(*zip(*points), marker=".", label=name)
        axes.set(xlabel=title, ylabel="ms per clip", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(args.growth, figure)
    print(f"figure: {args.growth}")


def arguments() -> argparse.Namespace:
    parser = common.new_parser(__doc__, rounds=3)
    parser.add_argument(
        "-c", "--config", default="2001", help="number in configs/, or a .yaml file"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64], help="batch sizes")
    parser.add_argument("--port", action="store_true", help="also the public port's form, 16 clips")
    parser.add_argument(
        "--growth", type=Path, nargs="?", const=FIGURE, metavar="PNG", help="draw how cost grows"
    )
    return common.parse(parser)


def main() -> int:
    args = arguments()
    config = configs.load(args.config)
    prepare_process()
    print(f"{common.machine('paddlepaddle')}; {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {PORT: port_form(config, folder)} if args.port else {}
        models.update(exported(config, folder))
        floors = {real: floor(config, real) for real in (REAL_FRAMES, FRAMES)}
        cases = [(batch, REAL_FRAMES) for batch in args.batches]
        cases += [(PORT_BATCH, FRAMES)] * (PORT_BATCH in args.batches)
        for persons, (batch, real) in product((1, 2), cases):
            text = f"{real} of {FRAMES} frames recorded"
            if real == FRAMES:
                text = f"all {FRAMES} frames recorded: nothing truncated"
            print(f"batch of {batch}, persons: {persons}, {text}, throughput (clips/s)")
            best = max(run_case(models, clips_of(batch, persons, real), args.rounds).values())
            ratio = 1000 / best / persons / floors[real]
            print(f"  the fastest engine takes {ratio:.1f} times the floor")
        if args.growth:
            growth(args, models, folder)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
