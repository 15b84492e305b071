"""Inspection of the graph in a .pdmodel, .json or .onnx file: no tensor of rank above 4, no einsum,
and in .onnx files only operators that compilers for accelerators support."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from errors import UserError

MAX_RANK = 4
UNKNOWN = -1  # a rank that the file does not tell
FORBIDDEN_OPS = ("einsum", "batch_norm", "dropout")  # of Paddle's formats

# The one opset that compilers for accelerators agree on: Rockchip's RKNN Toolkit2 takes 12 to 19,
# Ascend's CANN lists all operators below for 12, but Unsqueeze for nothing later.
OPSET = 12

# Operators of RKNN Toolkit2 (1.6; Div and Sqrt: 2.1) that CANN supports too; the less usual ones
# were looked up in its list (docs/export.md). None computes shapes: the graph compiles as it is
# once its axes have sizes.
CHIP_OPERATORS = {
    *("Add", "Clip", "Concat", "Conv", "Div", "GlobalAveragePool", "HardSigmoid", "MatMul", "Mul"),
    *("ReduceMax", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split"),
    *("Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
}

# Operator type -> count; rank of every tensor; names of the inputs and outputs; other problems.
_Findings = tuple[Counter[str], dict[str, int], set[str], list[str]]


@dataclass(frozen=True)
class ProgramFacts:
    """ops: type -> count. max_rank: of any tensor inside. problems: violated rules."""

    ops: Counter[str]
    max_rank: int
    problems: list[str]


def check_graph(model_file: Path, border_rank: int) -> None:
    """Raises UserError where a graph violates a rule. border_rank: see `inspect_program`."""
    facts = inspect_program(model_file, border_rank)
    logging.info("Program: %d operators, largest rank %d", sum(facts.ops.values()), facts.max_rank)
    if facts.problems:
        problems = "; ".join(facts.problems[:5])
        raise UserError(f"{model_file.name} violates the rules of 4-D graphs: {problems}")


def inspect_program(model_file: Path, border_rank: int = MAX_RANK) -> ProgramFacts:
    """Inspect every operator and tensor. border_rank: largest rank allowed for inputs and outputs.
    Raises UserError for a damaged file."""
    inspectors = {".onnx": _inspect_onnx, ".json": _inspect_pir}
    ops, ranks, border, found = inspectors.get(model_file.suffix, _inspect_paddle)(model_file)
    inside = {name: rank for name, rank in ranks.items() if name not in border}
    problems = [f"{name} has rank {rank}" for name, rank in inside.items() if rank > MAX_RANK]
    problems += [f"{name} has no known rank" for name, rank in ranks.items() if rank == UNKNOWN]
    problems += [
        f"{name} has rank {ranks[name]}" for name in sorted(border) if ranks[name] > border_rank
    ]
    # In-place operators of .json files end in an underscore.
    problems += [f"operator {op}" for op in ops if op.rstrip("_") in FORBIDDEN_OPS]
    return ProgramFacts(ops, max(inside.values()), problems + found)


def _inspect_paddle(model_file: Path) -> _Findings:
    from deploy.engines.paddle_engine import read_program

    ranks: dict[str, int] = {}
    border: set[str] = set()
    program = read_program(model_file)
    operators = [(block, op) for block in program.blocks for op in block.ops]
    for block, op in operators:
        used = set(op.input_arg_names + op.output_arg_names) - {"feed", "fetch"}
        if op.type in ("feed", "fetch"):
            border |= used
        if "XShape" in op.output_names:  # a shape for the backward pass; never computed
            used -= set(op.output("XShape"))
        ranks.update({name: len(block.var(name).shape) for name in used})
    return Counter(op.type for _, op in operators), ranks, border, []


def _inspect_pir(model_file: Path) -> _Findings:
    """Of the operators of the only block; exported networks have no branches."""
    from deploy.engines.paddle_engine import read_pir

    ranks: dict[str, int] = {}
    border: set[str] = set()
    program = read_pir(model_file)  # held: operators do not keep their program alive
    operators = program.global_block().ops
    fetched = [v for op in operators if op.name() == "pd_op.fetch" for v in op.operands_source()]
    names = [op.name().split(".", 1)[1] for op in operators]  # pd_op.conv2d, builtin.parameter
    for index, (op, name) in enumerate(zip(operators, names)):
        for number, value in enumerate(op.results()):
            if value.is_dense_tensor_type():  # else a list of other operators' results
                key = f"result {number} of operator {index} ({name})"
                ranks[key] = len(value.shape)
                if name in ("feed", "fetch") or any(value.is_same(v) for v in fetched):
                    border.add(key)
    return Counter(names), ranks, border, []


def _inspect_onnx(model_file: Path) -> _Findings:
    """Validates the file first. Raises UserError where that fails."""
    import onnx

    from deploy.onnx_file import read_onnx

    model = read_onnx(model_file)
    try:
        onnx.checker.check_model(model, full_check=True)
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{model_file}: not valid ONNX: {reason}") from error
    ops = Counter(".".join(filter(None, (node.domain, node.op_type))) for node in graph.node)
    border = [*graph.input, *graph.output]
    ranks = {name: UNKNOWN for node in graph.node for name in node.output if name}
    ranks.update({tensor.name: len(tensor.dims) for tensor in graph.initializer})
    for value in [*graph.value_info, *border]:
        tensor = value.type.tensor_type
        ranks[value.name] = len(tensor.shape.dim) if tensor.HasField("shape") else UNKNOWN
    found = [f"operator {op} is not in the list for chips" for op in ops.keys() - CHIP_OPERATORS]
    opsets = [(opset.domain, opset.version) for opset in model.opset_import]
    found += [
        f"opset {name} {version}" for name, version in opsets if (name, version) != ("", OPSET)
    ]
    return ops, ranks, {value.name for value in border}, sorted(found)
