"""Streaming: a step against the clip network on a sliding window, latency of a frame on one core,
and how many streams two cores sustain.

python benchmarks/bench_streaming.py
python benchmarks/bench_streaming.py --endurance 100000    also memory over that many frames

One person, 25 joints, random weights, windows of 300 frames. A prediction of the sliding window
runs the exported clip network on all of them; a prediction of the stream is one step. Both are
measured in turns in one process, one thread each, for every engine. Latency is that of an engine
and of what surrounds it: masks, states, sums. Streams are pushed in turns through one
StreamPredictor with all cores, features included.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import configs
from benchmarks import common
from configs.schema import Config
from dataset.protocols import data_spec
from deploy.engines.engine import CPU_ENGINES, Engine, open_engine
from deploy.meta import read_meta
from errors import run_command
from utils import num_cores, prepare_process

if TYPE_CHECKING:
    from deploy.stream_predictor import StreamPredictor
    from model.streaming.plan import Plan

WINDOW, FRAME_RATE = 300, 30
CAUSAL = {"model_args.att_type": "stja-causal"}
# Name -> configuration, changes, whether a clip network on a window does the same, frames of steps.
NETWORKS: dict[str, tuple[str, dict[str, Any], bool, tuple[int, ...]]] = {
    "ST-GCN": ("1001", {}, True, (4, 8, 16)),
    "EfficientGCN-B0, causal": ("2001", CAUSAL, False, (4, 8, 16)),
    "RT-ST-GCN": ("4211", {}, False, (1, 8)),
}
SLOW = ("onednn", "paddle")  # several times slower at such small sizes
SUFFIXES = {"paddle": ".pdmodel", "onnx": ".onnx"}


def one_person(number: str, changes: dict[str, Any]) -> Config:
    """A configuration with one person of 25 joints and windows of WINDOW frames."""
    own = {"num_class": 60, "skeleton": "ntu-25", "num_person": 1, "max_frame": WINDOW}
    own["num_frame"] = WINDOW
    return configs.load(number, {"dataset": "own", "dataset_args": {"keypoint": own}, **changes})


def exported(config: Config, folder: Path, chunk: int = 0) -> dict[str, tuple[Path, Engine]]:
    """Engine -> model file and opened engine, one thread each. chunk: frames of a step; 0: the clip
    network."""
    from deploy.exporting.contracts import ExportOptions
    from deploy.exporting.export import export_network
    from training.checkpoint import load_network

    spec = data_spec(config.dataset, config.data.own_layout)
    found: dict[str, tuple[Path, Engine]] = {}
    for kind, suffix in SUFFIXES.items():
        contract = {"contract": "stream", "chunk": chunk} if chunk else {"whole_clips": True}
        options = ExportOptions(format=kind, **contract)
        program = export_network(load_network(config, spec), config, spec, options, folder)
        for name in CPU_ENGINES[suffix]:
            if name not in found and name not in SLOW:
                found[name] = program, open_engine(program, None, name, 1)
    return found


class Steps:
    """Endless steps of one stream through an engine."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        from model.streaming.state import StreamState

        self.engine, self.plan, self.state = engine, plan, StreamState(plan, 1)
        shape = [1, *engine.inputs["frames"][1:]]
        self.frames = np.random.RandomState(0).standard_normal(shape).astype(np.float32)

    def __call__(self) -> None:
        from model.streaming.state import advance

        advance(self.engine.run, self.plan, [self.state], [self.frames], [None])


def repeat(work: Callable[[], None], times: int) -> None:
    for _ in range(times):
        work()


def latencies(work: Any, runs: int) -> np.ndarray:
    """Milliseconds of each run, after a warm-up in which OpenVINO compiles static shapes."""
    repeat(work, 60)
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return 1000 * np.array(seconds)


def step_of(config: Config) -> tuple[Any, list[list[int]]]:
    """The streaming network of a configuration, and the shapes of its inputs for one person."""
    from model.build import build_network
    from model.streaming.network import StreamingNetwork

    network = build_network(config, data_spec(config.dataset, config.data.own_layout), persons=1)
    step = StreamingNetwork(network)
    plan, channels = step.plan, sum(network.branch_channels)
    shapes = [[1, network.num_joint, channels, plan.chunk]]
    if plan.slots:
        shapes.append(list(plan.mask(0, None).shape))
    return step, shapes + [[1, *shape] for shape in plan.states.values()]


def against_the_window(name: str, config: Config, folders: dict[int, Path], args: Any) -> None:
    """Operations and time of one prediction. folders: frames of a step -> its folder."""
    from model.build import build_network

    spec = data_spec(config.dataset, config.data.own_layout)
    step, shapes = step_of(config)
    network = build_network(config, spec, persons=1)
    clip = [1, spec.skeleton.num_joint, sum(network.branch_channels), WINDOW]
    counts = common.multiply_adds(network, clip), common.multiply_adds(step, *shapes)
    print(
        f"{name}: multiply-adds of a prediction: {1e-6 * counts[0]:.1f} M on a window, "
        f"{1e-6 * counts[1]:.1f} M as a step: {counts[0] / counts[1]:.1f} times fewer"
    )
    streams = {chunk: opened_steps(config, folder, chunk) for chunk, folder in folders.items()}
    for engine, (_, opened) in exported(config, next(iter(folders.values())) / "clips").items():
        feeds = {"clips": np.random.RandomState(0).standard_normal(clip).astype(np.float32)}
        work: dict[str, tuple[Callable[[], object], int]]
        work = {"sliding window": (partial(opened.run, feeds), 1)}
        for chunk, steps in streams.items():
            repeat(steps[engine], 60)
            predictions = 20 * chunk // steps[engine].plan.stride
            work[f"steps of {chunk} frames"] = partial(repeat, steps[engine], 20), predictions
        print(f"{name}, {engine}, one thread, throughput (predictions/s)")
        common.measure(work, args.rounds)


def opened_steps(config: Config, folder: Path, chunk: int) -> dict[str, Steps]:
    """Engine -> a stream through it."""
    found = {}
    for engine, (program, opened) in exported(config, folder, chunk).items():
        meta = read_meta(program)
        assert meta is not None  # of a model just exported
        found[engine] = Steps(opened, meta.plan())
    return found


def frame_latency(name: str, config: Config, folder: Path, chunk: int, args: Any) -> None:
    """Median and 95th percentile of a step on one core, and per frame, of every engine."""
    for engine, steps in opened_steps(config, folder, chunk).items():
        state = steps.state.num_bytes
        millis = latencies(steps, args.steps)
        middle, tail = np.median(millis), np.percentile(millis, 95)
        print(
            f"{name}, {engine}, one thread: a step of {chunk} frames {middle:.2f} ms (95 % below "
            f"{tail:.2f}, fastest {millis.min():.2f}), {middle / chunk:.2f} ms a frame; state "
            f"{1e-6 * state:.2f} MB a person"
        )


def many_streams(name: str, predictor: StreamPredictor, args: Any) -> None:
    """Streams that all get frames at FRAME_RATE."""
    chunk, count = predictor.plan.chunk, args.streams
    frames = np.random.RandomState(0).standard_normal((3, chunk, 25, 1)).astype(np.float32)
    work = {f"s{n}": frames for n in range(count)}
    millis = latencies(lambda: predictor.push_all(work), args.rounds * 4)
    due = 1000 * chunk / FRAME_RATE
    middle = float(np.median(millis))
    print(
        f"{name}, {predictor.engine.name}, {count} streams, {num_cores()} cores: a step of {chunk} "
        f"frames of all {middle:.0f} ms (95 % below {np.percentile(millis, 95):.0f}), {due:.0f} ms "
        f"are due at {FRAME_RATE} frames/s: up to {int(count * due / middle)} streams"
    )
    for stream_id in predictor.streams:
        predictor.reset(stream_id)


def endurance(name: str, predictor: StreamPredictor, frames: int) -> None:
    """Memory of the process over one long stream."""
    chunk = predictor.plan.chunk
    part = np.random.RandomState(0).standard_normal((3, chunk, 25, 1)).astype(np.float32)
    sizes = []
    for step in range(frames // chunk):
        predictor.push(part)
        if step in (frames // chunk // 10, frames // chunk - 1):
            sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(f"{name}: peak memory after a tenth of {frames} frames {sizes[0]:.0f} MB, at the end "
          f"{sizes[-1]:.0f} MB")  # fmt: skip


def main() -> int:
    parser = common.new_parser(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=300, help="timed steps (default: 300)")
    parser.add_argument("--streams", type=int, default=64, help="simultaneous (default: 64)")
    parser.add_argument("--endurance", type=int, metavar="FRAMES", help="memory over a long stream")
    parser.add_argument("--only", choices=NETWORKS, help="one network (default: all)")
    args = common.parse(parser)
    prepare_process()
    from deploy.stream_predictor import StreamPredictor

    print(f"{common.machine('paddlepaddle', 'openvino', 'onnxruntime')}; {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as temporary:
        for name, (number, changes, window, chunks) in NETWORKS.items():
            if args.only not in (None, name):
                continue
            config = one_person(number, changes)
            folders = {chunk: Path(temporary) / f"{number}_{chunk}" for chunk in chunks}
            if window:
                against_the_window(name, config, folders, args)
            for chunk, folder in folders.items():
                frame_latency(name, config, folder, chunk, args)
                for suffix in SUFFIXES.values():
                    (program,) = folder.glob(f"*{suffix}")
                    many_streams(name, StreamPredictor.load(program), args)
            if args.endurance:
                endurance(name, StreamPredictor.load(program), args.endurance)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
