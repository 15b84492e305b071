"""OpenVINO's own runtime as an engine, without Paddle. A model with dynamic axes is compiled as it
is; a frequent shape is then compiled once more as a static shape, which runs 1.5 times as fast
(docs/performance.md)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import openvino

from deploy.engines.program_cache import compiled
from errors import UserError
from safe_io import file_hash

STATIC_AFTER = 40  # runs of a shape that cost about what compiling it saves
CUT = "cut"  # input of models that take truncated clips (deploy/exporting/contracts.py)
MAX_PROGRAMS = 24  # compiled models kept, some 30 MB each


class OpenVINOEngine:
    """A .pdmodel or .onnx model. See `deploy.engines.engine.Engine`."""

    name = "openvino"
    preferred_batch = 1  # a second clip in a batch exceeds the processor's caches: no gain
    frame_step = 16

    def __init__(self, model_file: Path, params_file: Path, cpu_threads: int) -> None:
        """Raises UserError for damaged files."""
        self.max_concurrency = cpu_threads
        self._core = openvino.Core()
        # Two threads that create OpenVINO's first tensors at the same time deadlock: the first
        # one is created here.
        openvino.Tensor(np.zeros(1, np.float32), shared_memory=True)
        files = (model_file, params_file) if model_file.suffix == ".pdmodel" else (model_file,)
        self._files = "".join(file_hash(file) for file in files)
        weights = str(params_file) if len(files) == 2 else ""
        try:
            self._model = self._core.read_model(str(model_file), weights)
            self.inputs = {
                port.any_name: [n.get_length() if n.is_static else -1 for n in port.partial_shape]
                # OpenVINO does not keep their order: `cut` comes after the clips.
                for port in sorted(self._model.inputs, key=lambda port: port.any_name == CUT)
            }
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{model_file}: OpenVINO cannot load it: {reason}") from error
        self._dynamic = any(-1 in shape for shape in self.inputs.values())
        self._programs: dict[Hashable, openvino.CompiledModel] = {}
        self._requests: dict[Hashable, openvino.InferRequest] = {}  # of a program and a thread
        self._runs: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def run(self, feeds: dict[str, np.ndarray], *, exclusive: bool = True) -> list[np.ndarray]:
        arrays = {name: np.ascontiguousarray(feeds[name], dtype=np.float32) for name in self.inputs}
        request = self._request(arrays, exclusive)
        results = request.infer(arrays, share_inputs=True)
        return [np.array(results[port]) for port in results]

    def _request(self, arrays: dict[str, np.ndarray], exclusive: bool) -> openvino.InferRequest:
        """This thread's request for these shapes: of a model with static shapes where they are
        frequent, else of the dynamic model. Requests are kept, because they own the memory of a
        run."""
        shapes = tuple(array.shape for array in arrays.values())
        with self._lock:
            self._runs[exclusive, shapes] += 1
            key = (exclusive, shapes if self._is_static(exclusive, shapes) else None)
            if key not in self._programs:
                self._programs[key] = self._compile(*key)
            own = (key, threading.get_ident())
            if own not in self._requests:
                self._requests[own] = self._programs[key].create_infer_request()
            return self._requests[own]

    def _is_static(self, exclusive: bool, shapes: tuple) -> bool:
        """Whether these shapes have, or now get, a model with static shapes. No compiled model is
        ever dropped for another: alternating lengths would be compiled again and again."""
        if not self._dynamic or self._runs[exclusive, shapes] <= STATIC_AFTER:
            return False
        return (exclusive, shapes) in self._programs or len(self._programs) < MAX_PROGRAMS

    def _compile(self, exclusive: bool, shapes: tuple | None) -> openvino.CompiledModel:
        model = self._model
        if shapes:
            model = model.clone()
            model.reshape(dict(zip(self.inputs, shapes)))
        settings = {
            "NUM_STREAMS": 1 if exclusive else self.max_concurrency,
            "INFERENCE_NUM_THREADS": self.max_concurrency,
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
            "ENABLE_CPU_PINNING": False,  # several processes would share the same cores
        }
        return compiled(self._core, model, f"{self._files} {shapes}", settings)
