"""Paddle program -> .onnx: converted in a subprocess, simplified, named, with metadata."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import onnx
import onnxruntime

from deploy.exporting.contracts import CONTRACTS
from deploy.exporting.formats import Shape
from deploy.exporting.graph_check import OPSET
from deploy.meta import StaticMeta
from deploy.onnx_file import read_onnx
from errors import UserError
from safe_io import temporary_folder, whole_file


def check_converter() -> None:
    """Raises UserError where Paddle2ONNX is not installed: it has no release for Python 3.13."""
    if importlib.util.find_spec("paddle2onnx") is None:
        raise UserError(
            "--format onnx: Paddle2ONNX is not installed, and has no release for Python 3.13 (this "
            f"is {platform.python_version()}); choose --format paddle or json, or set up with: "
            "rm -r .venv; make PYTHON=python3.12 setup"
        )


def write_onnx(program: Path, target: Path, meta: StaticMeta, shapes: Mapping[str, Shape]) -> None:
    """Convert a .pdmodel file (.pdiparams beside it) to `target`, with `meta` inside. shapes: of
    the inputs, by name, in the order of the contract; the converter has another. Raises UserError
    with the converter's reason where it fails."""
    model = _simplified(_converted(program))
    _name_border(model.graph, list(shapes), meta.outputs)
    _name_axes(model.graph, shapes, CONTRACTS[meta.contract].batch_outputs)
    model.producer_name, model.producer_version = "paddle2onnx", metadata.version("paddle2onnx")
    model.graph.name = meta.model_type
    meta.embed(model)
    with whole_file(target) as file:
        file.write(model.SerializeToString())


def _converted(program: Path) -> onnx.ModelProto:
    """The output of Paddle2ONNX. It prints from C++, hides its errors and aborts its process on
    some of them, so it runs in a subprocess."""
    root = Path(__file__).resolve().parents[2]
    with temporary_folder() as folder:
        raw = folder / "raw.onnx"
        command = [sys.executable, "-m", "deploy.exporting.paddle_to_onnx"]
        command += [str(program.resolve()), str(raw), str(OPSET)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace")
        if done.returncode != 0 or not os.path.isfile(raw):
            raise UserError(
                f"Paddle2ONNX {metadata.version('paddle2onnx')} cannot convert this model: "
                f"{_reason(done.stdout + done.stderr)}"
            )
        return read_onnx(raw)


def _reason(output: str) -> str:
    """The line of the converter's output that holds the error."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)  # without colour codes
    lines = [" ".join(line.split()) for line in plain.splitlines() if line.strip()]
    errors = [line for line in lines if "[ERROR]" in line]
    return (errors or lines or ["it printed nothing"])[-1][:300]


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the converter's hundreds of Identity and Constant nodes, and with constants folded.
    ONNX Runtime's basic optimisations write standard ONNX, the same on every CPU; its transpose
    optimiser suits only its own kernels and stays off."""
    with temporary_folder() as folder:
        simple = folder / "simple.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(simple)
        options.log_severity_level = 4
        content = model.SerializeToString()
        cpu, off = ["CPUExecutionProvider"], ["TransposeOptimizer"]
        try:
            onnxruntime.InferenceSession(content, options, cpu, disabled_optimizers=off)
        except Exception as error:  # ONNX Runtime's errors share no other base
            reason = " ".join(str(error).split())[-300:]
            raise UserError(
                f"ONNX Runtime cannot load the output of Paddle2ONNX: {reason}"
            ) from error
        model = read_onnx(simple)
    used = {node.domain for node in model.graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _name_border(graph: onnx.GraphProto, inputs: list[str], outputs: list[str]) -> None:
    """Put the inputs in order, and name the outputs."""
    order = {value.name: value for value in graph.input}
    del graph.input[:]
    graph.input.extend(order[name] for name in inputs)
    names = {value.name: name for value, name in zip(graph.output, outputs)}
    copies = [node for node in graph.node if node.op_type == "Identity"]  # left at outputs only
    for node in copies:
        names[node.input[0]] = names[node.output[0]]
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.output:
        value.name = names[value.name]


def _name_axes(
    graph: onnx.GraphProto, shapes: Mapping[str, Shape], batch_outputs: Callable[[str], bool]
) -> None:
    """Name the dynamic axes of inputs and outputs; axes of one name have equal sizes."""
    del graph.value_info[:]  # refers to axes by the converter's names
    for value in [*graph.input, *graph.output]:
        names = {0: "batch"} if batch_outputs(value.name) else {}
        shape = enumerate(shapes.get(value.name, ()))
        names.update({axis: size for axis, size in shape if isinstance(size, str)})
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param:
                size.dim_param = names.get(axis, f"{value.name}_{axis}")
