"""A float32 .onnx model -> X_int8.onnx: 8-bit integers in the layers that tolerate them.

    python tools/quantise.py xsub.onnx --data_file train_data.npy --eval_file eval_data.npy

Static post-training quantisation by ONNX Runtime's own tool; docs/int8.md shows when it pays off.
Clips of --data_file calibrate the ranges; clips of --eval_file, or others of --data_file, measure
the loss of accuracy. More than 1 point is refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import onnx
import onnx.version_converter

from dataset.storage import ClipSet, open_clips
from deploy.engines.engine import Engine
from deploy.engines.onnx_engine import OnnxEngine
from deploy.exporting.int8 import (
    MIN_DECIBELS,
    OPSET,
    Feeds,
    noise_ratios,
    quantise,
    weighted_nodes,
)
from deploy.meta import StaticMeta, read_meta
from deploy.onnx_file import read_onnx
from deploy.predictor import Predictor
from errors import UserError, run_command
from safe_io import whole_file
from utils import num_cores

MAX_LOSS = 1.0  # points
CALIBRATION_CLIPS = 64
COMPARED_CLIPS = 500  # of --data_file, where no --eval_file is given
BATCH = 16  # clips read at once
TIMED_RUNS = 15


@dataclass(frozen=True)
class Comparison:
    """int8 against float32. accuracies: top-1 of float32 and int8, 0 to 1; None without labels.
    agreement: share of clips with the same best class. difference: largest of any logit.
    seconds: of a batch, float32 and int8, the fastest run of each."""

    clips: int
    accuracies: tuple[float, float] | None
    agreement: float
    difference: float
    seconds: tuple[float, float]

    def loss(self) -> float:
        """In points of accuracy; of agreement where there are no labels."""
        if self.accuracies is None:
            return 100 * (1 - self.agreement)
        return 100 * (self.accuracies[0] - self.accuracies[1])


class Recorder:
    """An engine that records its inputs, for calibration on exactly those of inference."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.inputs = engine.name, engine.inputs
        self.max_concurrency, self.frame_step = 1, engine.frame_step
        self.preferred_batch = engine.preferred_batch
        self.feeds: list[Feeds] = []
        self._engine = engine

    def run(self, feeds: Feeds, *, exclusive: bool = True) -> list[np.ndarray]:
        self.feeds.append(feeds)
        return self._engine.run(feeds, exclusive=exclusive)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_file", type=Path, help="written by export.py --format onnx")
    parser.add_argument("--data_file", type=Path, required=True, help="clips trained on (.npy)")
    parser.add_argument("--eval_file", type=Path, help="clips to compare on, preferably labelled")
    parser.add_argument("--force", action="store_true", help="write it at any loss of accuracy")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    source, meta = open_float32(args.model_file)
    engine = Recorder(OnnxEngine(args.model_file, num_cores()))
    model = Predictor(engine, meta)
    data = open_clips(args.data_file)
    model.check_data(data)
    chosen, others = split_rows(len(data))
    compared = open_clips(args.eval_file) if args.eval_file else data
    model.check_data(compared)
    logits_of(model, data, chosen)
    feeds = list(engine.feeds)
    ratios = noise_ratios(source, weighted_nodes(source, model.skeleton.num_joint), feeds)
    nodes = [name for name, ratio in ratios.items() if ratio >= MIN_DECIBELS]
    if not nodes:
        raise UserError(f"{args.model_file}: none of its {len(ratios)} layers tolerates int8")
    print(f"{len(nodes)} of {len(ratios)} layers become int8; calibrated on {len(chosen)} clips")
    target = args.model_file.with_name(f"{args.model_file.stem}_int8.onnx")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / target.name
        quantise(source, file, meta, feeds, nodes)
        rows = list(range(len(compared))) if args.eval_file else others
        int8 = Predictor(OnnxEngine(file, num_cores()), meta)
        result = compare(model, int8, compared, rows, feeds)
        print(table(result, args.model_file, file))
        if result.loss() > MAX_LOSS and not args.force:
            raise UserError(
                f"int8 loses {result.loss():.2f} points on {result.clips} clips, allowed "
                f"{MAX_LOSS:g}; nothing was written; --force writes it anyway"
            )
        with whole_file(target) as out:
            out.write(file.read_bytes())
    print(f"{target} written")
    return 0


def open_float32(model_file: Path) -> tuple[onnx.ModelProto, StaticMeta]:
    """A model written by export.py, converted to OPSET. Raises UserError for anything else."""
    source = read_onnx(model_file) if model_file.suffix == ".onnx" else None
    meta = read_meta(model_file) if source else None
    if source is None or meta is None:
        raise UserError(
            f"{model_file}: allowed: a model that was written by: "
            "python export.py -c 2001 -pp W --format onnx"
        )
    meta.check_files(model_file, model_file.with_suffix(".pdiparams"))
    if any(node.op_type == "QuantizeLinear" for node in source.graph.node):
        raise UserError(f"{model_file} is int8 already; allowed: a float32 model")
    return onnx.version_converter.convert_version(source, OPSET), meta


def split_rows(count: int) -> tuple[list[int], list[int]]:
    """Clips for calibration, evenly spread, and up to COMPARED_CLIPS others to compare on; the same
    clips where there are no others."""
    chosen = np.unique(np.linspace(0, count - 1, min(count, CALIBRATION_CLIPS)).astype(int))
    others = np.setdiff1d(np.arange(count), chosen)
    others = others if len(others) else chosen
    spread = np.linspace(0, len(others) - 1, min(len(others), COMPARED_CLIPS)).astype(int)
    return chosen.tolist(), others[spread].tolist()


def logits_of(model: Predictor, clips: ClipSet, rows: Sequence[int]) -> np.ndarray:
    """(N, num_class) of some clips of a file. Raises UserError where they hold NaN."""
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    try:
        return np.concatenate([model.run(clips.data[part]).logits for part in parts])
    except UserError as error:
        raise UserError(f"{clips.path}: {error}") from error


def compare(
    float32: Predictor, int8: Predictor, clips: ClipSet, rows: Sequence[int], feeds: list[Feeds]
) -> Comparison:
    """Logits on clips of a file, and times of one recorded batch; the runs alternate, so that other
    processes slow down both."""
    expected, got = logits_of(float32, clips, rows), logits_of(int8, clips, rows)
    accuracies = None
    if clips.labels is not None:
        labels = clips.labels[list(rows)]
        right = [float((logits.argmax(axis=1) == labels).mean()) for logits in (expected, got)]
        accuracies = (right[0], right[1])
    batch = max(feeds, key=lambda feed: next(iter(feed.values())).size)
    seconds = (np.inf, np.inf)
    for _ in range(TIMED_RUNS):
        times = []
        for model in (float32, int8):
            start = time.perf_counter()
            model.engine.run(batch)
            times.append(time.perf_counter() - start)
        seconds = (min(seconds[0], times[0]), min(seconds[1], times[1]))
    return Comparison(
        clips=len(rows),
        accuracies=accuracies,
        agreement=float((expected.argmax(axis=1) == got.argmax(axis=1)).mean()),
        difference=float(np.abs(expected - got).max()),
        seconds=seconds,
    )


def table(result: Comparison, float32_file: Path, int8_file: Path) -> str:
    """A heading and two rows: accuracy, agreement, difference, size, time."""
    lines = [f"{result.clips} clips   top-1     agree   logits   size      per batch"]
    rows = ((float32_file, 1.0, 0.0), (int8_file, result.agreement, result.difference))
    for n, (file, agreement, difference) in enumerate(rows):
        top1 = f"{100 * result.accuracies[n]:.2f} %" if result.accuracies else "-"
        lines.append(
            f"{('float32', 'int8')[n]:10} {top1:9} {100 * agreement:6.2f} % +-{difference:.3g}   "
            f"{file.stat().st_size / 1000:.0f} kB   {1000 * result.seconds[n]:.1f} ms"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
