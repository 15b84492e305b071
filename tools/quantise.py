"""A float32 .onnx model -> X_int8.onnx: layers with weights in 8-bit integers, where they bear it.

    python tools/quantise.py xsub.onnx --data_file train_data.npy --eval_file eval_data.npy

Static quantisation after training, by ONNX Runtime's own tool. Whether it is worth having, and how
the rules below were found, is in docs/int8.md. Clips of --data_file give the ranges of the numbers;
clips of --eval_file, or others of --data_file, show what is lost. More than 1 point is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root stands in for this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import onnx
import onnx.version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from dataset.storage import ClipSet, open_clips
from deploy.engines.engine import Engine
from deploy.engines.onnx_engine import OnnxEngine, open_session
from deploy.meta import StaticMeta, read_meta
from deploy.onnx_file import model_hash, read_onnx, write_properties
from deploy.predictor import Predictor
from errors import UserError, run_command
from safe_io import whole_file
from utils import num_cores

Feeds = dict[str, np.ndarray]

OPSET = 13  # the first with scales by channel

# Signal above the rounding noise of 8 bits, in decibels, at a layer's input and output.
# Below 20 EfficientGCN-B0 breaks, all at once: velocities are small but for a few jumps.
MIN_DECIBELS = 22.0
MAX_LOSS = 1.0  # points
CALIBRATION_CLIPS = 64
TRIAL_CLIPS = 500  # of --data_file, where no --eval_file is given
BATCH = 16  # clips read at once
TIMED_RUNS = 15


@dataclass(frozen=True)
class Comparison:
    """What int8 changes. accuracies: top-1 of float32 and int8, 0 to 1, None without labels.
    agreement: share of clips with the same best class. difference: largest of any logit.
    seconds: of a batch, float32 and int8, the fastest run of each."""

    clips: int
    accuracies: tuple[float, float] | None
    agreement: float
    difference: float
    seconds: tuple[float, float]

    def loss(self) -> float:
        """Points of accuracy; of agreement where there are no labels."""
        if self.accuracies is None:
            return 100 * (1 - self.agreement)
        return 100 * (self.accuracies[0] - self.accuracies[1])


class Recorder:
    """An engine that keeps what it is given, for calibration on just what inference sees."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.inputs = engine.name, engine.inputs
        self.max_concurrency, self.frame_step = 1, engine.frame_step
        self.preferred_batch = engine.preferred_batch
        self.feeds: list[Feeds] = []
        self._engine = engine

    def run(self, feeds: Feeds, *, exclusive: bool = True) -> list[np.ndarray]:
        self.feeds.append(feeds)
        return self._engine.run(feeds, exclusive=exclusive)


class _Reader(CalibrationDataReader):
    """One batch after the other. With CalibStridedMinMax ONNX Runtime asks for parts of it and
    keeps no more than one part in memory."""

    def __init__(self, feeds: list[Feeds]) -> None:
        self._feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Feeds | None:
        return next(self._left, None)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_file", type=Path, help="of export.py --format onnx")
    parser.add_argument("--data_file", type=Path, required=True, help="clips trained on (.npy)")
    parser.add_argument("--eval_file", type=Path, help="clips to compare on, best with labels")
    parser.add_argument("--force", action="store_true", help="write it whatever it loses")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    source, meta = open_float32(args.model_file)
    engine = Recorder(OnnxEngine(args.model_file, num_cores()))
    model = Predictor(engine, meta)
    data = open_clips(args.data_file)
    model.check_data(data)
    chosen, others = split_rows(len(data))
    trial = open_clips(args.eval_file) if args.eval_file else data
    model.check_data(trial)
    logits_of(model, data, chosen)
    feeds = list(engine.feeds)
    ratios = noise_ratios(source, weighted_nodes(source, model.skeleton.num_joint), feeds)
    nodes = [name for name, ratio in ratios.items() if ratio >= MIN_DECIBELS]
    if not nodes:
        raise UserError(f"{args.model_file}: none of its {len(ratios)} layers bears int8")
    print(f"{len(nodes)} of {len(ratios)} layers become int8; calibrated on {len(chosen)} clips")
    target = args.model_file.with_name(f"{args.model_file.stem}_int8.onnx")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / target.name
        quantise(source, file, meta, feeds, nodes)
        rows = list(range(len(trial))) if args.eval_file else others
        result = compare(model, Predictor(OnnxEngine(file, num_cores()), meta), trial, rows, feeds)
        print(table(result, args.model_file, file))
        if result.loss() > MAX_LOSS and not args.force:
            raise UserError(
                f"int8 loses {result.loss():.2f} points on {result.clips} clips, allowed "
                f"{MAX_LOSS:g}; nothing was written; --force writes it all the same"
            )
        with whole_file(target) as out:
            out.write(file.read_bytes())
    print(f"{target} written")
    return 0


def open_float32(model_file: Path) -> tuple[onnx.ModelProto, StaticMeta]:
    """A model as export.py writes it, raised to OPSET. Raises UserError for anything else."""
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
    """Clips for calibration, evenly spread, and up to TRIAL_CLIPS others; all again where there
    are no others."""
    chosen = np.unique(np.linspace(0, count - 1, min(count, CALIBRATION_CLIPS)).astype(int))
    others = np.setdiff1d(np.arange(count), chosen)
    others = others if len(others) else chosen
    spread = np.linspace(0, len(others) - 1, min(len(others), TRIAL_CLIPS)).astype(int)
    return chosen.tolist(), others[spread].tolist()


def logits_of(model: Predictor, clips: ClipSet, rows: Sequence[int]) -> np.ndarray:
    """(N, num_class) of some clips of a file. Raises UserError for NaN in them."""
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    try:
        return np.concatenate([model.run(clips.data[part]).logits for part in parts])
    except UserError as error:
        raise UserError(f"{clips.path}: {error}") from error


def weighted_nodes(source: onnx.ModelProto, num_joint: int) -> list[onnx.NodeProto]:
    """Convolutions, and products with a matrix of weights, which is what some 1x1 convolutions
    are exported as. Products with an adjacency are left out: they gain nothing. So are layers on a
    concatenation, whose parts have ranges of their own: OpenVINO 2025.3 gives up on them."""
    joined = {name for n in source.graph.node if n.op_type == "Concat" for name in n.output}
    shapes = {tensor.name: list(tensor.dims) for tensor in source.graph.initializer}
    adjacency = [num_joint, num_joint]
    return [
        node
        for node in source.graph.node
        if node.op_type in ("Conv", "MatMul")
        and node.input[0] not in joined
        and shapes.get(node.input[1], adjacency) != adjacency
    ]


def noise_ratios(
    source: onnx.ModelProto, nodes: list[onnx.NodeProto], feeds: list[Feeds]
) -> dict[str, float]:
    """How far, in decibels, the numbers at a node stand above the rounding of 8 bits: its name ->
    the lower ratio of its input and its output.

    8 bits share out the whole range of a tensor. Where a few numbers are far above the rest, the
    rest falls between two steps.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(source)
    given = {value.name for value in [*source.graph.input, *source.graph.output]}
    wanted = dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0]))
    for name in wanted.keys() - given:
        probe.graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    session = open_session(probe.SerializeToString(), num_cores())
    names = [output.name for output in session.get_outputs()]
    power, low, high = (dict.fromkeys(wanted, 0.0) for _ in range(3))
    for batch in feeds:
        inputs = {name: batch[name] for name in (i.name for i in session.get_inputs())}
        tensors = {**inputs, **dict(zip(names, session.run(names, inputs)))}
        for name in wanted:
            values = tensors[name]
            power[name] += float(np.square(values, dtype=np.float64).mean()) / len(feeds)
            low[name] = min(low[name], float(values.min()))
            high[name] = max(high[name], float(values.max()))

    def ratio(name: str) -> float:
        step = max(high[name] - low[name], 1e-30) / 255
        return 10 * float(np.log10(max(power[name], 1e-60) / (step**2 / 12)))

    return {node.name: min(ratio(node.input[0]), ratio(node.output[0])) for node in nodes}


def quantise(
    source: onnx.ModelProto, target: Path, meta: StaticMeta, feeds: list[Feeds], nodes: list[str]
) -> None:
    """Write `source` with those nodes in int8, its meta inside, and a note in its doc_string.

    QDQ: every tensor between float operators and their rounded twins, which engines and chips'
    compilers fuse. Weights by channel, symmetric; activations 0 to 255 over the range seen.
    """
    raised = target.with_name("float32.onnx")
    raised.write_bytes(source.SerializeToString())
    logging.disable(logging.WARNING)  # it asks for preparations that export has made
    try:
        quantize_static(
            str(raised),
            str(target),
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,  # without VNNI, CPUs add products of full 8-bit weights in 16 bits
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibStridedMinMax": 1},
        )
    finally:
        logging.disable(logging.NOTSET)
    model = read_onnx(target)
    model.doc_string = f"int8: {len(nodes)} layers, by tools/quantise.py; the rest float32"
    del model.metadata_props[:]
    write_properties(model, dataclasses.replace(meta, program_sha256=model_hash(model)).to_tree())
    target.write_bytes(model.SerializeToString())


def compare(
    float32: Predictor, int8: Predictor, clips: ClipSet, rows: Sequence[int], feeds: list[Feeds]
) -> Comparison:
    """Answers on clips of a file; times of one recorded batch, in turns, for other programs slow
    both down."""
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
    """Two lines under a heading: accuracy, agreement, difference, size, time."""
    lines = [f"{result.clips} clips   top-1     agree   logits   size      a batch"]
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
