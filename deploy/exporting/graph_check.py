"""The proof that compilers for chips can take the graph of an .onnx file."""

from __future__ import annotations

from pathlib import Path

import onnx

from deploy.exporting.onnx_export import OPSET
from deploy.exporting.verify import MAX_RANK, UNKNOWN, ProgramFacts, facts_of
from deploy.onnx_file import read_onnx
from errors import UserError

# What a graph may hold: operators of Rockchip's RKNN Toolkit2 (1.6) that Ascend's CANN takes too,
# the less usual ones looked up (docs/export.md). None works on shapes: the graph compiles as it is
# once its axes have sizes.
CHIP_OPERATORS = frozenset(
    {
        *("Add", "Clip", "Concat", "Conv", "GlobalAveragePool", "HardSigmoid", "MatMul", "Mul"),
        *("ReduceMax", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split"),
        *("Squeeze", "Sub", "Transpose", "Unsqueeze"),
    }
)


def inspect_onnx(model_file: Path, border_rank: int = MAX_RANK) -> ProgramFacts:
    """Check a file by the rules of ONNX, then walk every operator and every tensor.

    border_rank: axes allowed to the inputs and outputs of the graph. Raises UserError for a file
    that is against the rules.
    """
    model = read_onnx(model_file)
    try:
        onnx.checker.check_model(model, full_check=True)
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{model_file}: against the rules of ONNX: {reason}") from error
    ops: dict[str, int] = {}
    for node in graph.node:
        name = ".".join(filter(None, (node.domain, node.op_type)))
        ops[name] = ops.get(name, 0) + 1
    border = [*graph.input, *graph.output]
    ranks = {name: UNKNOWN for node in graph.node for name in node.output if name}
    ranks.update({tensor.name: len(tensor.dims) for tensor in graph.initializer})
    ranks.update({value.name: _rank(value) for value in [*graph.value_info, *border]})
    problems = [f"operator {op} is not in the list for chips" for op in ops.keys() - CHIP_OPERATORS]
    problems += [
        f"opset {opset.domain} {opset.version}"
        for opset in model.opset_import
        if (opset.domain, opset.version) != ("", OPSET)
    ]
    return facts_of(ops, ranks, {value.name for value in border}, border_rank, sorted(problems))


def _rank(value: onnx.ValueInfoProto) -> int:
    tensor = value.type.tensor_type
    return len(tensor.shape.dim) if tensor.HasField("shape") else UNKNOWN
