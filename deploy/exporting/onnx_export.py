"""Paddle program -> .onnx: converted in a process of its own, made simple, named, described."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import onnx
import onnxruntime

from deploy.meta import StaticMeta
from deploy.onnx_file import model_hash, read_onnx, write_properties
from errors import UserError
from safe_io import whole_file

# The one opset that compilers for chips agree on: Rockchip's RKNN Toolkit2 takes 12 to 19, Ascend's
# CANN lists every operator of ours for 12, but not Unsqueeze for anything later.
OPSET = 12

# Free axes by input; a name that inputs share says that they are equal.
_AXES = {
    "clips": {0: "batch", 3: "frames"},
    "cut": {0: "batch"},
    "data": {2: "frames", 4: "persons"},
    "logits": {0: "batch"},
}


def write_onnx(program: Path, target: Path, meta: StaticMeta, input_names: list[str]) -> None:
    """Convert a .pdmodel file (.pdiparams beside it) to `target`, with `meta` inside.

    input_names: in the order wanted; Paddle's converter has its own. Raises UserError where the
    converter fails, with its reason.
    """
    model = _simplified(_converted(program))
    _name_border(model.graph, input_names, meta.outputs)
    model.producer_name, model.producer_version = "paddle2onnx", metadata.version("paddle2onnx")
    model.graph.name = meta.model_type
    write_properties(model, replace(meta, program_sha256=model_hash(model)).to_tree())
    with whole_file(target) as file:
        file.write(model.SerializeToString())


def _converted(program: Path) -> onnx.ModelProto:
    """Paddle2ONNX's model. It writes to the screen from C++, hides its errors, and ends the
    process on some, so it gets one of its own."""
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        command = [
            sys.executable,
            "-m",
            "deploy.exporting.paddle_to_onnx",
            str(program.resolve()),
            str(raw),
        ]
        done = subprocess.run(
            [*command, str(OPSET)], cwd=root, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0 or not raw.is_file():
            raise UserError(
                f"Paddle2ONNX {metadata.version('paddle2onnx')} cannot convert this model: "
                f"{_reason(done.stdout + done.stderr)}"
            )
        return read_onnx(raw)


def _reason(output: str) -> str:
    """The line of the converter's output that says what went wrong."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)  # without its colours
    lines = [" ".join(line.split()) for line in plain.splitlines() if line.strip()]
    telling = [line for line in lines if "[ERROR]" in line]
    return (telling or lines or ["it said nothing"])[-1][:300]


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the converter's hundreds of Identity and Constant nodes, and with everything worked
    out that no input decides. ONNX Runtime's basic rules write plain ONNX, the same on every CPU;
    its rearranging of transposes is for its own kernels and stays off."""
    with tempfile.TemporaryDirectory() as folder:
        simple = Path(folder) / "simple.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(simple)
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["TransposeOptimizer"],
            )
        except Exception as error:  # ONNX Runtime's errors share no other base
            reason = " ".join(str(error).split())[-300:]
            raise UserError(f"ONNX Runtime cannot load what Paddle2ONNX made: {reason}") from error
        model = read_onnx(simple)
    used = {node.domain for node in model.graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _name_border(graph: onnx.GraphProto, inputs: list[str], outputs: list[str]) -> None:
    """Put the inputs in order, give the outputs and the free axes names that mean something."""
    order = {value.name: value for value in graph.input}
    del graph.input[:]
    graph.input.extend(order[name] for name in inputs)
    names = {value.name: name for value, name in zip(graph.output, outputs)}
    copies = [node for node in graph.node if node.op_type == "Identity"]  # only outputs have some
    for node in copies:
        names[node.input[0]] = names[node.output[0]]
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.output:
        value.name = names[value.name]
    del graph.value_info[:]  # has the converter's names of axes
    for value in [*graph.input, *graph.output]:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param:
                size.dim_param = _AXES.get(value.name, {}).get(axis, f"{value.name}_{axis}")
