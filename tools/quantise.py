"""A float32 .onnx model -> X_int8.onnx: 8-bit integers in the layers that tolerate them.

    python tools/quantise.py xsub.onnx --data_file train_data.npy --eval_file eval_data.npy

It takes models for whole clips, and streaming steps, which play the clips from their first frame.
Static post-training quantisation by ONNX Runtime's own tool; docs/int8.md shows when it pays off.
Clips of --data_file calibrate the ranges; clips of --eval_file, or others of --data_file, measure
the loss of accuracy. More than 1 point is refused.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import onnx
import onnx.version_converter
from onnxruntime import quantization

from dataset.storage import ClipSet, open_clips
from deploy.engines.onnx_engine import OnnxEngine, open_session
from deploy.meta import StaticMeta, read_meta
from deploy.onnx_file import read_onnx
from deploy.predictor import Predictor
from deploy.stream_play import played
from deploy.stream_predictor import StreamPredictor
from errors import UserError, run_command
from safe_io import MODEL_BYTES, read_bytes, temporary_folder, whole_file
from utils import num_cores

Feeds = dict[str, np.ndarray]
Model = Predictor | StreamPredictor

OPSET = 13  # the first with per-channel scales
# Signal to quantisation noise of 8 bits, in decibels, at a layer's input and output. Below 20 the
# accuracy of EfficientGCN-B0 collapses: velocities are small but for a few jumps.
MIN_DECIBELS = 22.0
MAX_LOSS = 1.0  # points
CALIBRATION_CLIPS = 64
COMPARED_CLIPS = 500  # of --data_file, where no --eval_file is given
BATCH = 16  # clips read at once
# Recorded inputs. A step has its states as inputs: 3 MB for two persons with ST-GCN.
MAX_BYTES = 2**29
TIMED_RUNS = 15


@dataclass(frozen=True)
class Comparison:
    """int8 against float32. accuracies: top-1 of float32 and int8, 0 to 1; None without labels.
    agreement: share of clips with the same best class. difference: largest of any logit.
    seconds: of a run (a batch of clips, or a step), float32 and int8, the fastest of each."""

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


class Recorder(OnnxEngine):
    """Records its inputs, for calibration on exactly those of inference. Where they exceed
    MAX_BYTES, a random sample of the runs: every n-th could always be the same step of a clip."""

    def __init__(self, model_file: Path) -> None:
        super().__init__(model_file, num_cores())
        self.feeds: list[Feeds] = []
        self._runs, self._random = 0, np.random.default_rng(0)

    def run(self, feeds: Feeds, *, exclusive: bool = True) -> list[np.ndarray]:
        self._runs += 1
        limit = max(MAX_BYTES // sum(array.nbytes for array in feeds.values()), 1)
        full = len(self.feeds) >= limit
        place = int(self._random.integers(self._runs)) if full else len(self.feeds)
        if place < limit:  # every run so far is kept with the same probability
            self.feeds[place : place + 1] = [feeds]
        return super().run(feeds, exclusive=exclusive)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_file", type=Path, help="written by export.py --format onnx")
    parser.add_argument("--data_file", type=Path, required=True, help="clips trained on (.npy)")
    parser.add_argument("--eval_file", type=Path, help="clips to compare on, preferably labelled")
    parser.add_argument(
        "--min_decibels",
        type=float,
        default=MIN_DECIBELS,
        help="layers below stay float32 (default: %(default)g); raise it where int8 is refused",
    )
    parser.add_argument("--force", action="store_true", help="write it at any loss of accuracy")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    source, meta = open_float32(args.model_file)
    engine = Recorder(args.model_file)
    model = open_model(engine, meta)
    data = open_clips(args.data_file)
    model.check_data(data)
    chosen, others = split_rows(len(data))
    compared = open_clips(args.eval_file) if args.eval_file else data
    model.check_data(compared)
    logits_of(model, data, chosen)
    feeds = list(engine.feeds)
    ratios = noise_ratios(source, weighted_nodes(source, model.input.skeleton.num_joint), feeds)
    nodes = [name for name, ratio in ratios.items() if ratio >= args.min_decibels]
    if not nodes:
        raise UserError(f"{args.model_file}: none of its {len(ratios)} layers tolerates int8")
    print(
        f"{len(nodes)} of {len(ratios)} layers become int8; calibrated on {len(chosen)} clips, "
        f"{len(feeds)} runs"
    )
    target = args.model_file.with_name(f"{args.model_file.stem}_int8.onnx")
    with temporary_folder() as folder:
        file = folder / target.name
        quantise(source, file, meta, feeds, nodes)
        rows = list(range(len(compared))) if args.eval_file else others
        int8 = open_model(OnnxEngine(file, num_cores()), meta)
        result = compare(model, int8, compared, rows, feeds)
        print(table(result, args.model_file, file))
        if result.loss() > MAX_LOSS and not args.force:
            raise UserError(
                f"int8 loses {result.loss():.2f} points on {result.clips} clips, allowed "
                f"{MAX_LOSS:g}; nothing was written; --min_decibels {args.min_decibels + 3:g} "
                "keeps more layers in float32, --force writes it anyway"
            )
        with whole_file(target) as out:
            out.write(read_bytes(file, MODEL_BYTES))
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


def open_model(engine: OnnxEngine, meta: StaticMeta) -> Model:
    """Raises UserError where they do not fit together."""
    return StreamPredictor(engine, meta) if meta.stream else Predictor(engine, meta)


def weighted_nodes(source: onnx.ModelProto, num_joint: int) -> list[onnx.NodeProto]:
    """Convolutions, and the matrix products with weights as which some 1x1 convolutions are
    exported. Not products with an adjacency, which become no faster, and not layers that read a
    concatenation of different ranges: OpenVINO 2025.3 cannot compile them. A step joins its states
    with its new frames, which were the same tensor some frames earlier: one range."""
    inputs = {value.name for value in source.graph.input}
    joins = [n for n in source.graph.node if n.op_type == "Concat" and inputs.isdisjoint(n.input)]
    joined = {name for node in joins for name in node.output}
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
    """Node name -> signal to quantisation noise of 8 bits in decibels, the lower one of the node's
    input and output. The 256 steps cover the whole range of a tensor: where a few values are far
    above the rest, the rest lies within one step."""
    observed = onnx.ModelProto()
    observed.CopyFrom(source)
    given = {value.name for value in [*source.graph.input, *source.graph.output]}
    wanted = dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0]))
    for name in wanted.keys() - given:
        observed.graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    session = open_session(observed.SerializeToString(), num_cores())
    names = [output.name for output in session.get_outputs()]
    power, low, high = (dict.fromkeys(wanted, 0.0) for _ in range(3))
    for batch in feeds:
        inputs = {value.name: batch[value.name] for value in session.get_inputs()}
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
    """Write `source` with those nodes in int8, its metadata inside, and a note in its doc_string.
    QDQ format: QuantizeLinear and DequantizeLinear around float operators, which engines and
    compilers fuse. Weights per channel, symmetric; activations 0 to 255 over the observed range."""
    float32 = target.with_name("float32.onnx")
    float32.write_bytes(source.SerializeToString())
    logging.disable(logging.WARNING)  # it suggests preprocessing that export has done
    try:
        quantization.quantize_static(
            str(float32),
            str(target),
            Reader(feeds),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,  # without VNNI, CPUs add products of full 8-bit weights in 16 bits
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"CalibStridedMinMax": 1},
        )
    finally:
        logging.disable(logging.NOTSET)
    model = read_onnx(target)
    model.doc_string = f"int8: {len(nodes)} layers, by tools/quantise.py; the rest float32"
    meta.embed(model)
    target.write_bytes(model.SerializeToString())


class Reader(quantization.CalibrationDataReader):
    """One batch after another. With CalibStridedMinMax ONNX Runtime reads a range of batches at a
    time and keeps only their activations in memory."""

    def __init__(self, feeds: list[Feeds]) -> None:
        self._feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Feeds | None:
        return next(self._left, None)


def split_rows(count: int) -> tuple[list[int], list[int]]:
    """Clips for calibration, evenly spread, and up to COMPARED_CLIPS others to compare on; the same
    clips where there are no others."""
    chosen = np.unique(np.linspace(0, count - 1, min(count, CALIBRATION_CLIPS)).astype(int))
    others = np.setdiff1d(np.arange(count), chosen)
    others = others if len(others) else chosen
    spread = np.linspace(0, len(others) - 1, min(len(others), COMPARED_CLIPS)).astype(int)
    return chosen.tolist(), others[spread].tolist()


def logits_of(model: Model, clips: ClipSet, rows: Sequence[int]) -> np.ndarray:
    """(N, num_class) of some clips of a file; of a step, at the end of each clip. Raises UserError
    where they hold NaN."""
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]

    def run(part: Sequence[int]) -> np.ndarray:
        batch = clips.data[part]
        return model.run(batch).logits if isinstance(model, Predictor) else played(model, batch)

    try:
        return np.concatenate([run(part) for part in parts])
    except UserError as error:
        raise UserError(f"{clips.path}: {error}") from error


def compare(
    float32: Model, int8: Model, clips: ClipSet, rows: Sequence[int], feeds: list[Feeds]
) -> Comparison:
    """Logits on clips of a file, and times of one recorded run; the runs alternate, so that other
    processes slow down both."""
    expected, got = logits_of(float32, clips, rows), logits_of(int8, clips, rows)
    best = [expected.argmax(axis=1), got.argmax(axis=1)]
    accuracies = None
    if clips.labels is not None:
        labels = clips.labels[list(rows)]
        accuracies = float((best[0] == labels).mean()), float((best[1] == labels).mean())
    batch = max(feeds, key=lambda feed: next(iter(feed.values())).size)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED_RUNS):
        for model, seconds in zip((float32, int8), times):
            start = time.perf_counter()
            model.engine.run(batch)
            seconds.append(time.perf_counter() - start)
    agreement, difference = (best[0] == best[1]).mean(), np.abs(expected - got).max()
    fastest = min(times[0]), min(times[1])
    return Comparison(len(rows), accuracies, float(agreement), float(difference), fastest)


def table(result: Comparison, float32_file: Path, int8_file: Path) -> str:
    """A heading and two rows: accuracy, agreement, difference, size, time."""
    lines = [f"{result.clips} clips   top-1     agree   logits   size      per run"]
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
