"""One way to run a static model, whatever runs it:

paddle       Paddle's native CPU kernels, .pdmodel or .json
openvino     OpenVINO inside Paddle, .pdmodel
onednn       the .pdmodel program with oneDNN kernels
onnxruntime  ONNX Runtime, .onnx
gpu          Paddle's GPU kernels       tensorrt   TensorRT inside Paddle
             (both never run by the authors: no GPU)
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Protocol

import numpy as np

from safe_io import UserError

# By the ending of a model file; the first is tried first.
CPU_ENGINES = {
    ".pdmodel": ("openvino", "paddle", "onednn"),
    ".json": ("paddle",),
    ".onnx": ("onnxruntime",),
}
GPU_ENGINES = {".pdmodel": ("gpu", "tensorrt"), ".json": ("gpu",), ".onnx": ()}
AUTO = "auto"
ENGINES = (AUTO, *dict.fromkeys(name for names in CPU_ENGINES.values() for name in names))


class Engine(Protocol):
    """A loaded static model. Not thread-safe: one engine a thread.

    name: of the engine. inputs: name -> shape, as written in the file, -1 for a free axis; the
    clips come first.
    """

    name: str
    inputs: dict[str, list[int]]

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """feeds: float32 arrays of the shapes of `inputs`. Every output of the model, logits
        first."""


def open_engine(model_file: Path, params_file: Path | None, name: str, cpu_threads: int) -> Engine:
    """Raises UserError for missing or damaged files, for an engine that does not run files of
    this kind, and for an absent GPU."""
    kind = model_file.suffix
    if kind not in CPU_ENGINES:
        raise UserError(f"{model_file}: allowed: a file ending in {', '.join(CPU_ENGINES)}")
    if name == AUTO:
        return _fastest(model_file, params_file, cpu_threads)
    allowed = CPU_ENGINES[kind] + GPU_ENGINES[kind]
    if name not in allowed:
        raise UserError(f"engine {name} does not run {kind} files; allowed: {', '.join(allowed)}")
    if name == "onnxruntime":
        from deploy.onnx_engine import OnnxEngine

        return OnnxEngine(model_file, cpu_threads)
    from deploy.paddle_engine import PaddleEngine

    return PaddleEngine(model_file, params_file, name, cpu_threads)


def _fastest(model_file: Path, params_file: Path | None, cpu_threads: int) -> Engine:
    """Times the CPU engines of a file on a clip of zeros, takes the fastest that gives finite
    numbers, and logs what it saw. oneDNN is tried only where no other works: it was several times
    slower on every CPU measured (docs/performance.md), and timing it would cost more than it
    could win."""
    names = CPU_ENGINES[model_file.suffix]
    if len(names) == 1:
        return open_engine(model_file, params_file, names[0], cpu_threads)
    working: list[tuple[float, Engine]] = []
    seen: list[str] = []
    for name in names:
        if name == "onednn" and working:
            break
        try:
            engine = open_engine(model_file, params_file, name, cpu_threads)
            seconds = trial(engine)
        except (UserError, RuntimeError) as error:
            seen.append(f"{name} does not run it ({' '.join(str(error).split())[:120]})")
            continue
        seen.append(f"{name} {1000 * seconds:.0f} ms a clip")
        working.append((seconds, engine))
    if not working:
        raise UserError(f"{model_file}: no engine runs it: {'; '.join(seen)}")
    chosen = min(working, key=lambda pair: pair[0])[1]
    logging.info("Engine: %s (auto, the fastest that works: %s)", chosen.name, "; ".join(seen))
    return chosen


TRIAL_FRAMES = 128  # of a free axis; a usual clip with its tail cut


def trial(engine: Engine) -> float:
    """Seconds of the second run on zeros. Raises UserError where the answer is not finite."""
    feeds = {
        name: np.zeros([1 if n < 1 else n for n in shape[:-1]] + [max(shape[-1], 1)], np.float32)
        for name, shape in engine.inputs.items()
    }
    clips = next(iter(engine.inputs))
    if engine.inputs[clips][-1] < 1:
        feeds[clips] = np.zeros((*feeds[clips].shape[:-1], TRIAL_FRAMES), np.float32)
    for _ in range(2):
        start = time.perf_counter()
        logits = engine.run(feeds)[0]
        seconds = time.perf_counter() - start
    if not np.isfinite(logits).all():
        raise UserError("it gives NaN for a clip of zeros")
    return seconds
