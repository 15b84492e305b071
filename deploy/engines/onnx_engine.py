"""ONNX Runtime as an engine (deploy/engines/engine.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from errors import UserError

_FATAL_ONLY = 4  # log level; errors are raised as well


class OnnxEngine:
    """A whole model in one .onnx file. See `deploy.engines.engine.Engine`."""

    name = "onnxruntime"
    max_concurrency, preferred_batch, frame_step = 1, 4, 1

    def __init__(self, model_file: Path, cpu_threads: int) -> None:
        """Raises UserError for a damaged file, and for inputs that are not float32."""
        try:
            self._session = open_session(str(model_file), cpu_threads)
        except Exception as error:  # ONNX Runtime's errors share no other base
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{model_file}: not a model for ONNX Runtime: {reason}") from error
        inputs = self._session.get_inputs()
        odd = [f"{i.name} is {i.type}" for i in inputs if i.type != "tensor(float)"]
        if odd or not inputs:
            raise UserError(
                f"{model_file}: inputs must be float32; {', '.join(odd) or 'there are none'}"
            )
        self.inputs = {i.name: [n if isinstance(n, int) else -1 for n in i.shape] for i in inputs}

    def run(self, feeds: dict[str, np.ndarray], *, exclusive: bool = True) -> list[np.ndarray]:
        arrays = {name: np.ascontiguousarray(feeds[name], dtype=np.float32) for name in self.inputs}
        return self._session.run(None, arrays)


def open_session(model: str | bytes, cpu_threads: int) -> onnxruntime.InferenceSession:
    """A CPU session of a model, given as a path or as its bytes. Raises what ONNX Runtime
    raises."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
