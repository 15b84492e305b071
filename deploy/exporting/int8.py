"""Static post-training quantisation of an .onnx model by ONNX Runtime's own tool: which layers, and
the file. docs/int8.md shows how the rules were found."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from deploy.engines.onnx_engine import open_session
from deploy.meta import StaticMeta
from deploy.onnx_file import model_hash, read_onnx, write_properties
from utils import num_cores

Feeds = dict[str, np.ndarray]

OPSET = 13  # the first with per-channel scales

# Signal to quantisation noise of 8 bits, in decibels, at a layer's input and output. Below 20 the
# accuracy of EfficientGCN-B0 collapses: velocities are small but for a few jumps.
MIN_DECIBELS = 22.0


def weighted_nodes(source: onnx.ModelProto, num_joint: int) -> list[onnx.NodeProto]:
    """Convolutions, and the matrix products with weights as which some 1x1 convolutions are
    exported. Not products with an adjacency, which become no faster, and not layers that read a
    concatenation, whose parts have different ranges: OpenVINO 2025.3 cannot compile them."""
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
    """Node name -> signal to quantisation noise of 8 bits in decibels, the lower one of the node's
    input and output.

    The 256 steps cover the whole range of a tensor. Where a few values are far above the rest, the
    rest lies within one step.
    """
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
    """Write `source` with those nodes in int8, its metadata inside, and a note in its doc_string.

    QDQ format: QuantizeLinear and DequantizeLinear around float operators, which engines and
    compilers fuse. Weights per channel, symmetric; activations 0 to 255 over the observed range.
    """
    float32 = target.with_name("float32.onnx")
    float32.write_bytes(source.SerializeToString())
    logging.disable(logging.WARNING)  # it suggests preprocessing that export has done
    try:
        quantize_static(
            str(float32),
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


class _Reader(CalibrationDataReader):
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
