"""One interface to everything that runs a static model, and the table of engines. To add an engine:
a class in a file of its own, and a row in `TABLE` with its loader."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from deploy.engines.params_check import check_params
from deploy.engines.probe import probe_once
from deploy.engines.program_check import check_program
from errors import UserError
from utils import import_paddle_quietly

SUFFIXES = (".pdmodel", ".json", ".onnx")  # of the model files that export.py writes
AUTO = "auto"
DUMMY_FRAMES = 128  # of a dummy input with a dynamic time axis; a usual truncated clip


class Engine(Protocol):
    """A loaded static model.

    name: of the engine. inputs: name -> shape, as written in the file, -1 for a dynamic axis; the
    clips come first. max_concurrency: threads that may call `run` at the same time.
    preferred_batch: clips to pass in one call. frame_step: clip lengths should be multiples of it,
    because every new length costs time.
    """

    name: str
    inputs: dict[str, list[int]]
    max_concurrency: int
    preferred_batch: int
    frame_step: int

    def run(self, feeds: dict[str, np.ndarray], *, exclusive: bool = True) -> list[np.ndarray]:
        """All outputs of the model, logits first. feeds: float32 arrays of the shapes of `inputs`.
        exclusive: no concurrent run, use all threads."""


class EngineRow(NamedTuple):
    """suffixes: of the model files that the engine runs. device: 'cpu' or 'gpu'.
    load(model_file, params_file, cpu_threads): imports the engine's file and opens the model."""

    suffixes: tuple[str, ...]
    device: str
    load: Callable[[Path, Path, int], Engine]


def _load_openvino(model_file: Path, params_file: Path, cpu_threads: int) -> Engine:
    from deploy.engines.openvino_engine import OpenVINOEngine

    return OpenVINOEngine(model_file, params_file, cpu_threads)


def _load_onnxruntime(model_file: Path, params_file: Path, cpu_threads: int) -> Engine:
    from deploy.engines.onnx_engine import OnnxEngine

    return OnnxEngine(model_file, cpu_threads)


def _load_paddle(name: str, model_file: Path, params_file: Path, cpu_threads: int) -> Engine:
    import_paddle_quietly()
    from deploy.engines.paddle_engine import PaddleEngine

    return PaddleEngine(model_file, params_file, name, cpu_threads)


# CPU engines from the fastest to the slowest (docs/performance.md): `auto` tries them in order.
# openvino is OpenVINO's own runtime, paddle_openvino the one inside Paddle, paddle Paddle's native
# kernels. gpu and tensorrt are not tested by the authors, who have no GPU.
TABLE: dict[str, EngineRow] = {
    "openvino": EngineRow((".pdmodel", ".onnx"), "cpu", _load_openvino),
    "paddle_openvino": EngineRow((".pdmodel",), "cpu", partial(_load_paddle, "paddle_openvino")),
    "paddle": EngineRow((".pdmodel", ".json"), "cpu", partial(_load_paddle, "paddle")),
    "onednn": EngineRow((".pdmodel",), "cpu", partial(_load_paddle, "onednn")),
    "onnxruntime": EngineRow((".onnx",), "cpu", _load_onnxruntime),
    "gpu": EngineRow((".pdmodel", ".json"), "gpu", partial(_load_paddle, "gpu")),
    "tensorrt": EngineRow((".pdmodel",), "gpu", partial(_load_paddle, "tensorrt")),
}


def engines_for(suffix: str, *devices: str) -> tuple[str, ...]:
    """Names of the engines that run a kind of file on one of the devices, in the table's order."""
    return tuple(
        name for name, row in TABLE.items() if suffix in row.suffixes and row.device in devices
    )


CPU_ENGINES = {suffix: engines_for(suffix, "cpu") for suffix in SUFFIXES}
ENGINES = (AUTO, *(name for name, row in TABLE.items() if row.device == "cpu"))


def open_engine(
    model_file: Path, params_file: Path | None, name: str, cpu_threads: int, first: str = ""
) -> Engine:
    """`load_engine` of a model that is not known: its first run is in a process of its own
    (deploy/engines/probe.py)."""
    params_file = _checked_params(model_file, params_file, name)
    probe_once(model_file, params_file, name, cpu_threads)
    return _load(model_file, params_file, name, cpu_threads, first)


def load_engine(
    model_file: Path, params_file: Path | None, name: str, cpu_threads: int, first: str = ""
) -> Engine:
    """first: the engine that AUTO tries before the others. Raises UserError for missing or damaged
    files, for an engine that does not run files of this kind, and for an absent GPU."""
    params_file = _checked_params(model_file, params_file, name)
    return _load(model_file, params_file, name, cpu_threads, first)


def _checked_params(model_file: Path, params_file: Path | None, name: str) -> Path:
    """The file of the weights, after the checks of it and of the program."""
    kind = model_file.suffix
    if kind not in SUFFIXES:
        raise UserError(f"{model_file}: allowed: a file ending in {', '.join(SUFFIXES)}")
    params_file = params_file or model_file.with_suffix(".pdiparams")
    for file in (model_file,) if kind == ".onnx" else (model_file, params_file):
        if not os.path.isfile(file):
            option = " --format onnx" if kind == ".onnx" else ""
            raise UserError(
                f"{file}: no such file; write it with: python export.py -c 2001 -pp W{option}"
            )
    allowed = engines_for(kind, "cpu", "gpu")
    if name not in (AUTO, *allowed):
        raise UserError(f"engine {name} does not run {kind} files; allowed: {', '.join(allowed)}")
    check_program(model_file)
    if kind != ".onnx":
        check_params(model_file, params_file)
    return params_file


def _load(model_file: Path, params_file: Path, name: str, cpu_threads: int, first: str) -> Engine:
    if name == AUTO:
        return _first_that_works(model_file, params_file, cpu_threads, first)
    return TABLE[name].load(model_file, params_file, cpu_threads)


def _first_that_works(model_file: Path, params_file: Path, cpu_threads: int, first: str) -> Engine:
    """The first CPU engine that loads the file and gives finite numbers; logs why others were
    skipped. Nothing is timed: the order was the same on every CPU measured, and timing would add a
    second to every start."""
    skipped: list[str] = []
    for name in sorted(engines_for(model_file.suffix, "cpu"), key=lambda name: name != first):
        try:
            engine = TABLE[name].load(model_file, params_file, cpu_threads)
            probe_engine(engine)
        except (UserError, RuntimeError, ImportError) as error:
            skipped.append(f"{name} does not run it ({' '.join(str(error).split())[:120]})")
            continue
        logging.info("Engine: %s (auto%s)", name, "".join(f"; {reason}" for reason in skipped))
        return engine
    raise UserError(f"{model_file}: no engine runs it; the first of {len(skipped)}: {skipped[0]}")


def probe_engine(engine: Engine) -> None:
    """Run the engine on a dummy input. Raises UserError where a clip of zeros does not give finite
    numbers."""
    feeds = {}
    for name, (*shape, last) in engine.inputs.items():
        sizes = [*(max(n, 1) for n in shape), last if last > 0 else DUMMY_FRAMES]
        feeds[name] = np.zeros(sizes, np.float32)
    if not np.isfinite(engine.run(feeds)[0]).all():
        raise UserError("it gives NaN for a clip of zeros")
