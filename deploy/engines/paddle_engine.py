"""Paddle Inference 3.1 as an engine (deploy/engines/engine.py)."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import inference

from errors import UserError
from safe_io import MODEL_BYTES, read_bytes
from utils import num_gpus

_GPU_MEMORY_MB = 512  # first allocation; Paddle grows it
_PIR_VERSION = 1  # of the operators in .json files
_EMPTY = "an empty program; write it again with export.py"
# Operators that run in oneDNN. Matrix products are not among them: with one factor for all frames
# they took 8 times as long as all other operators (docs/performance.md). Leaving out an addition or
# an activation would break oneDNN's fusions.
_ONEDNN_OPS = {
    *("conv2d", "fused_conv2d", "depthwise_conv2d", "pool2d", "softmax", "concat", "split"),
    *("elementwise_add", "elementwise_mul", "elementwise_sub", "scale", "reduce_mean"),
    *("swish", "sigmoid", "hard_swish", "relu", "relu6", "reshape2", "transpose2", "slice"),
}
_ONEDNN_SHAPES = 10  # kept in its cache; without a limit it leaks memory
STATIC_MODE = threading.Lock()  # Paddle's static mode is global to all threads


def _base_config(model_file: Path, params_file: Path, cache: str) -> inference.Config:
    config = inference.Config(str(model_file), str(params_file))
    config.disable_glog_info()
    config.set_optim_cache_dir(cache)
    if model_file.suffix == ".json":  # without these two, enable_memory_optim fails
        config.enable_new_executor()
        config.enable_new_ir()
    config.enable_memory_optim()
    return config


def _use_cpu(config: inference.Config, cpu_threads: int) -> None:
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(cpu_threads)
    config.disable_mkldnn()


def _use_openvino(config: inference.Config, cpu_threads: int) -> None:
    _use_cpu(config, cpu_threads)
    config.enable_openvino_engine(inference.PrecisionType.Float32)


def _use_onednn(config: inference.Config, cpu_threads: int) -> None:
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(cpu_threads)
    config.enable_mkldnn()
    config.set_mkldnn_cache_capacity(_ONEDNN_SHAPES)
    config.set_mkldnn_op(_ONEDNN_OPS)


def _use_gpu(config: inference.Config, cpu_threads: int) -> None:
    if not num_gpus():
        raise UserError(
            "a GPU was asked for, but this Paddle sees none; leave out --use_gpu, or install "
            "paddlepaddle-gpu"
        )
    config.enable_use_gpu(_GPU_MEMORY_MB, 0)


def _use_tensorrt(config: inference.Config, cpu_threads: int) -> None:
    _use_gpu(config, cpu_threads)
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,  # bytes
        max_batch_size=1,
        min_subgraph_size=3,  # operators
        precision_mode=inference.PrecisionType.Float32,
        use_static=False,
        use_calib_mode=False,
    )


_SETTINGS = {
    "paddle": _use_cpu,
    "paddle_openvino": _use_openvino,
    "onednn": _use_onednn,
    "gpu": _use_gpu,
    "tensorrt": _use_tensorrt,
}


class PaddleEngine:
    """A .pdmodel or .json program and its .pdiparams. See `deploy.engines.engine.Engine`."""

    max_concurrency, preferred_batch, frame_step = 1, 4, 1

    def __init__(self, model_file: Path, params_file: Path, name: str, cpu_threads: int) -> None:
        """name: a key of `_SETTINGS`. Raises UserError for damaged files, and where a GPU is
        needed and absent."""
        self.name = name
        self.inputs = input_shapes(model_file)
        self._cache = tempfile.TemporaryDirectory()  # of OpenVINO, else the working directory
        try:
            config = _base_config(model_file, params_file, self._cache.name)
            _SETTINGS[name](config, cpu_threads)
            self._predictor = inference.create_predictor(config)
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{model_file}: engine {name} cannot load it: {reason}") from error
        self._inputs = {n: self._predictor.get_input_handle(n) for n in self.inputs}
        names = self._predictor.get_output_names()
        self._outputs = [self._predictor.get_output_handle(n) for n in names]

    def run(self, feeds: dict[str, np.ndarray], *, exclusive: bool = True) -> list[np.ndarray]:
        for name, handle in self._inputs.items():
            handle.reshape(feeds[name].shape)
            handle.copy_from_cpu(np.ascontiguousarray(feeds[name], dtype=np.float32))
        self._predictor.run()
        return [output.copy_to_cpu() for output in self._outputs]


def read_program(model_file: Path) -> paddle.static.Program:
    """The program of a .pdmodel file. Raises UserError for any other file: the engines themselves
    end the process on some damaged ones."""
    content = read_bytes(model_file, MODEL_BYTES)
    with STATIC_MODE, _user_errors(model_file):
        # Paddle reads programs in static mode only, and enable_static() works only in the thread
        # that imported Paddle.
        with paddle.base.framework._dygraph_guard(None):
            program = paddle.static.deserialize_program(content)
        if not program.blocks or not program.global_block().ops:
            raise UserError(f"{model_file}: {_EMPTY}")
    return program


def read_pir(model_file: Path) -> paddle.base.libpaddle.pir.Program:
    """The program of a .json file. Raises UserError for any other file."""
    with STATIC_MODE, _user_errors(model_file):
        json.loads(read_bytes(model_file, MODEL_BYTES))
        with paddle.pir_utils.IrGuard():
            program: Any = paddle.static.Program()  # of the guard: a PIR program
            paddle.base.core.deserialize_pir_program(str(model_file), program, _PIR_VERSION)
        if not program.global_block().ops:
            raise UserError(f"{model_file}: {_EMPTY}")
    return program


@contextlib.contextmanager
def _user_errors(model_file: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, TypeError, KeyError, SystemError) as error:
        raise UserError(f"{model_file}: not a static model of Paddle") from error


def input_shapes(model_file: Path) -> dict[str, list[int]]:
    """Inputs of a .pdmodel or .json file in order: name -> shape, -1 for a dynamic axis. Raises
    UserError."""
    if model_file.suffix == ".json":
        program = read_pir(model_file)  # kept: operators do not keep their program alive
        ops = [op for op in program.global_block().ops if op.name() == "pd_op.feed"]
        ops.sort(key=lambda op: op.attrs()["col"])
        shapes = {op.attrs()["name"]: list(op.results()[0].shape) for op in ops}
    else:
        ops = [op for op in read_program(model_file).global_block().ops if op.type == "feed"]
        ops.sort(key=lambda op: op.attr("col"))
        names = [op.output("Out")[0] for op in ops]
        shapes = {name: list(ops[0].block.var(name).shape) for name in names}
    if not shapes:
        raise UserError(f"{model_file}: a program without inputs; write it again with export.py")
    return shapes
