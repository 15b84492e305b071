"""What a static model may do: compute, once, and nothing else. Models come from anybody; some
operators of Paddle write and read files or call Python, and loops may never end. Every program is
checked before an engine sees it. Without Paddle: most engines start without it.

The lists hold the operators of what export.py writes and of the public port's model, and their
like: each computes its outputs from its inputs and nothing else.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf.message import DecodeError

from errors import UserError
from safe_io import MODEL_BYTES, read_bytes

# Names in .pdmodel files; those in .json files are older or newer names of the same.
_PADDLE = {
    *("feed", "fetch", "assign", "assign_value", "fill_constant", "full", "full_int_array"),
    *("cast", "scale", "shape", "shape64", "slice", "strided_slice", "split", "split_with_num"),
    *("concat", "stack", "unstack", "combine", "transpose", "transpose2", "reshape", "reshape2"),
    *("squeeze", "squeeze2", "unsqueeze", "unsqueeze2", "flatten", "flatten2", "expand"),
    *("flatten_contiguous_range", "expand_v2", "expand_as_v2", "tile", "gather", "gather_nd"),
    *("index_select", "roll", "flip", "pad", "pad2d", "pad3d", "where", "range", "arange"),
    *("fill_any_like", "full_like", "fill_constant_batch_size_like", "full_batch_size_like"),
    *("elementwise_add", "elementwise_sub", "elementwise_mul", "elementwise_div"),
    *("elementwise_max", "elementwise_min", "elementwise_pow", "elementwise_mod"),
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "elementwise_floordiv"),
    *("add_n", "sum", "mean", "max", "min", "prod", "cumsum", "reduce_sum", "reduce_mean"),
    *("reduce_max", "reduce_min", "reduce_prod", "arg_max", "argmax", "arg_min", "argmin"),
    *("top_k_v2", "topk", "matmul", "matmul_v2", "mul", "bmm", "einsum", "dot", "p_norm", "norm"),
    *("conv1d", "conv2d", "conv3d", "depthwise_conv2d", "pool2d", "pool3d", "bilinear_interp_v2"),
    *("nearest_interp_v2", "batch_norm", "layer_norm", "instance_norm"),
    *("group_norm", "dropout", "softmax", "log_softmax", "sigmoid", "logsigmoid", "tanh", "relu"),
    *("relu6", "leaky_relu", "prelu", "elu", "gelu", "silu", "swish", "mish", "hard_swish"),
    *("hardswish", "hard_sigmoid", "hardsigmoid", "softplus", "clip", "abs", "sign", "floor"),
    *("ceil", "round", "exp", "log", "sqrt", "rsqrt", "square", "pow", "reciprocal", "sin", "cos"),
    *("equal", "not_equal", "less_than", "less_equal", "greater_than", "greater_equal"),
    *("logical_and", "logical_or", "logical_not", "bitwise_and", "isnan", "isnan_v2"),
    *("isfinite_v2", "isinf_v2", "isfinite", "isinf", "increment", "one_hot_v2", "embedding"),
}
# Of the standard domain. Loop, Scan, If and their like are not among them.
_ONNX = {
    *("Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil"),
    *("Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "Cos", "CumSum"),
    *("DepthToSpace", "DequantizeLinear", "Div", "Dropout", "DynamicQuantizeLinear", "Einsum"),
    *("Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements"),
    *("GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater"),
    *("GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "IsInf"),
    *("IsNaN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax"),
    *("MatMul", "MatMulInteger", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg"),
    *("NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QLinearConv"),
    *("QLinearMatMul", "QuantizeLinear", "Range", "Reciprocal", "ReduceL1", "ReduceL2"),
    *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu"),
    *("Reshape", "Resize", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign"),
    *("Sin", "Size", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Sqrt", "Squeeze"),
    *("Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor"),
}
_DOMAINS = ("", "ai.onnx")
_DIALECTS = ("0", "1")  # of .json files: Paddle's structure and its operators
PARAMETER = "p"  # of .json files, an operator by its form
_FORMAT_MODULE = "base/proto/framework_pb2.py"  # in Paddle's folder; needs nothing of Paddle


def check_program(model_file: Path) -> None:
    """Raises UserError for a .pdmodel, .json or .onnx file that is damaged, or with an operator
    that is not on the list; of .onnx also for other files that it names."""
    names = {".onnx": _onnx_names, ".json": _pir_names}.get(model_file.suffix, _paddle_names)
    allowed = _ONNX if model_file.suffix == ".onnx" else _PADDLE
    odd = sorted({name for name in names(model_file) if name not in allowed})
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        shown = ", ".join(repr(name[:40]) for name in odd[:3])
        raise UserError(
            f"{model_file}: operators that are not allowed: {shown}{more}; allowed: those that "
            "only compute (deploy/engines/program_check.py); write the model with export.py"
        )


def read_paddle(model_file: Path) -> Any:
    """The ProgramDesc of a .pdmodel file. Raises UserError for another file."""
    program = paddle_format().ProgramDesc()
    try:
        program.ParseFromString(read_bytes(model_file, MODEL_BYTES))
    except DecodeError as error:
        raise UserError(f"{model_file}: not a static model of Paddle") from error
    return program


def _paddle_names(model_file: Path) -> Iterator[str]:
    """Of all blocks."""
    return (op.type for block in read_paddle(model_file).blocks for op in block.ops)


@cache
def paddle_format() -> ModuleType:
    """The protocol buffers of .pdmodel files, without the rest of Paddle."""
    paddle = importlib.util.find_spec("paddle")
    assert paddle is not None and paddle.origin is not None  # in requirements.txt
    spec = importlib.util.spec_from_file_location(
        "deploy.engines._paddle_format", Path(paddle.origin).parent / _FORMAT_MODULE
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_pir(model_file: Path) -> Any:
    """The content of a .json program. Raises UserError for a file that is not JSON."""
    content = read_bytes(model_file, MODEL_BYTES)
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{model_file}: not a static model of Paddle") from error


def _pir_names(model_file: Path) -> Iterator[str]:
    """Of all regions: an operator is 'N.name' of dialect N, an in-place one ends in '_'."""
    rest: list[Any] = [read_pir(model_file)]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest += value
        elif isinstance(value, dict):
            rest += value.values()
            operators = value.get("ops")
            for op in operators if isinstance(operators, list) else ():
                name = str(op.get("#") if isinstance(op, dict) else op)
                dialect, _, plain = name.partition(".")
                if name != PARAMETER:
                    yield plain.rstrip("_") if dialect in _DIALECTS else name


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a name that comes twice: readers differ in which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _onnx_names(model_file: Path) -> Iterator[str]:
    """Of the graph; one with graphs inside, functions, or data in other files is refused."""
    import onnx

    from deploy.onnx_file import read_onnx

    model = read_onnx(model_file)
    if model.functions:
        raise UserError(f"{model_file}: has functions of its own; allowed: none")
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            if attribute.HasField("g") or attribute.graphs:
                raise UserError(f"{model_file}: operator {node.op_type} has graphs inside")
        yield node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"
    tensors += [part for t in model.graph.sparse_initializer for part in (t.values, t.indices)]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise UserError(f"{model_file}: its weights are in other files; allowed: one file")
