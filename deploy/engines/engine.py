"""One way to run a static model, whatever runs it:

openvino         OpenVINO's own runtime, .pdmodel or .onnx
paddle           Paddle's native CPU kernels, .pdmodel or .json
paddle_openvino  OpenVINO inside Paddle, .pdmodel
onednn           Paddle with oneDNN kernels, .pdmodel
onnxruntime      ONNX Runtime, .onnx
gpu, tensorrt    Paddle's GPU kernels, TensorRT inside Paddle; never run by the authors: no GPU
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import numpy as np

from errors import UserError
from utils import import_paddle_quietly

# By the ending of a model file, the fastest first (docs/performance.md).
CPU_ENGINES = {
    ".pdmodel": ("openvino", "paddle_openvino", "paddle", "onednn"),
    ".json": ("paddle",),
    ".onnx": ("openvino", "onnxruntime"),
}
GPU_ENGINES = {".pdmodel": ("gpu", "tensorrt"), ".json": ("gpu",), ".onnx": ()}
AUTO = "auto"
ENGINES = (AUTO, *dict.fromkeys(name for names in CPU_ENGINES.values() for name in names))


class Engine(Protocol):
    """A loaded static model.

    name: of the engine. inputs: name -> shape, as written in the file, -1 for a free axis; the
    clips come first. streams: so many threads may be in `run` at once. batch: clips that it is
    best given at once. frame_step: lengths of clips had better be multiples of it, because every
    new one costs time.
    """

    name: str
    inputs: dict[str, list[int]]
    streams: int
    batch: int
    frame_step: int

    def run(self, feeds: dict[str, np.ndarray], *, alone: bool = True) -> list[np.ndarray]:
        """feeds: float32 arrays of the shapes of `inputs`. alone: no other run goes on at the
        same time, take all threads. Every output of the model, logits first."""


def open_engine(model_file: Path, params_file: Path | None, name: str, cpu_threads: int) -> Engine:
    """Raises UserError for missing or damaged files, for an engine that does not run files of
    this kind, and for an absent GPU."""
    kind = model_file.suffix
    if kind not in CPU_ENGINES:
        raise UserError(f"{model_file}: allowed: a file ending in {', '.join(CPU_ENGINES)}")
    params_file = params_file or model_file.with_suffix(".pdiparams")
    for file in (model_file,) if kind == ".onnx" else (model_file, params_file):
        if not file.is_file():
            option = " --format onnx" if kind == ".onnx" else ""
            raise UserError(
                f"{file}: no such file; write it with: python export.py -c 2001 -pp W{option}"
            )
    if name == AUTO:
        return _first_that_works(model_file, params_file, cpu_threads)
    allowed = CPU_ENGINES[kind] + GPU_ENGINES[kind]
    if name not in allowed:
        raise UserError(f"engine {name} does not run {kind} files; allowed: {', '.join(allowed)}")
    if name == "openvino":
        from deploy.engines.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(model_file, params_file, cpu_threads)
    if name == "onnxruntime":
        from deploy.engines.onnx_engine import OnnxEngine

        return OnnxEngine(model_file, cpu_threads)
    import_paddle_quietly()
    from deploy.engines.paddle_engine import PaddleEngine

    return PaddleEngine(model_file, params_file, name, cpu_threads)


def _first_that_works(model_file: Path, params_file: Path | None, cpu_threads: int) -> Engine:
    """The fastest engine of a file that loads it and gives finite numbers; logs why others were
    passed over. Nothing is timed: the order was the same on every CPU measured, and timing would
    cost every start a second."""
    seen: list[str] = []
    for name in CPU_ENGINES[model_file.suffix]:
        try:
            engine = open_engine(model_file, params_file, name, cpu_threads)
            trial(engine)
        except (UserError, RuntimeError, ImportError) as error:
            seen.append(f"{name} does not run it ({' '.join(str(error).split())[:120]})")
            continue
        logging.info("Engine: %s (auto%s)", name, "".join(f"; {reason}" for reason in seen))
        return engine
    raise UserError(f"{model_file}: no engine runs it; the first of {len(seen)}: {seen[0]}")


TRIAL_FRAMES = 128  # of a free axis; a usual clip with its tail cut


def trial(engine: Engine) -> None:
    """Raises UserError where a clip of zeros does not give finite numbers."""
    feeds = {
        name: np.zeros([max(n, 1) for n in shape], np.float32)
        for name, shape in engine.inputs.items()
    }
    clips = next(iter(engine.inputs))
    if engine.inputs[clips][-1] < 1:
        feeds[clips] = np.zeros((*feeds[clips].shape[:-1], TRIAL_FRAMES), np.float32)
    if not np.isfinite(engine.run(feeds)[0]).all():
        raise UserError("it gives NaN for a clip of zeros")
