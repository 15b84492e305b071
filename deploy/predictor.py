"""One way to run a static model, several engines behind it (all of Paddle Inference 3.1):

paddle    native CPU kernels         onednn    the same program with oneDNN kernels
openvino  OpenVINO inside Paddle     gpu       native GPU kernels (never run by the authors)
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import paddle
from paddle import inference

from deploy.meta import StaticMeta, meta_path
from safe_io import UserError

CPU_ENGINES = ("openvino", "paddle", "onednn")
_GPU_MEMORY_MB = 512  # first allocation; Paddle grows it


class Predictor:
    """A loaded static model. Not thread-safe: one predictor a thread.

    input_shape: as written in the file, -1 for a free axis. meta: None for a model of the public
    port, which has no .meta.yaml.
    """

    def __init__(
        self,
        model_file: Path,
        params_file: Path | None = None,
        *,
        engine: str = "openvino",
        cpu_threads: int = 1,
    ) -> None:
        """Raises UserError for missing or damaged files and for an absent GPU."""
        self.engine = engine
        model_file, params_file = model_files(model_file, params_file)
        self.input_shape = _input_shape(model_file)
        meta_file = meta_path(model_file)
        self.meta = StaticMeta.load(meta_file) if meta_file.is_file() else None
        self._cache = tempfile.TemporaryDirectory()  # OpenVINO writes a cache, else into the cwd
        try:
            self._predictor = inference.create_predictor(
                self._settings(model_file, params_file, cpu_threads)
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"{model_file}: engine {engine} cannot load it: {reason}") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._outputs = [
            self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()
        ]

    def _settings(self, model: Path, params: Path, cpu_threads: int) -> inference.Config:
        config = inference.Config(str(model), str(params))
        config.disable_glog_info()
        config.set_optim_cache_dir(self._cache.name)
        config.enable_memory_optim()
        if self.engine == "gpu":
            require_gpu()
            config.enable_use_gpu(_GPU_MEMORY_MB, 0)
            return config
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(cpu_threads)
        if self.engine == "onednn":
            config.enable_mkldnn()
            config.set_mkldnn_cache_capacity(10)  # shapes kept; without a bound it leaks
        else:
            config.disable_mkldnn()
        if self.engine == "openvino":
            config.enable_openvino_engine(inference.PrecisionType.Float32)
        return config

    def run(self, clips: np.ndarray) -> list[np.ndarray]:
        """clips: float32 of `input_shape`. Returns every output of the model, logits first."""
        self._input.reshape(clips.shape)
        self._input.copy_from_cpu(np.ascontiguousarray(clips, dtype=np.float32))
        self._predictor.run()
        return [output.copy_to_cpu() for output in self._outputs]


def model_files(model_file: Path, params_file: Path | None) -> tuple[Path, Path]:
    """The two files of a static model; the parameters are beside the program if not given.
    Raises UserError where one is missing."""
    params_file = params_file or model_file.with_name(f"{model_file.stem}.pdiparams")
    for file in (model_file, params_file):
        if not os.path.isfile(file):
            raise UserError(f"{file}: no such file; write it with: python export.py -c 2001 -pp W")
    return model_file, params_file


def read_program(model_file: Path) -> paddle.static.Program:
    """The program of a .pdmodel file. Raises UserError for any other file: the engines themselves
    end the process on some damaged ones."""
    content = model_file.read_bytes()
    paddle.enable_static()  # Paddle reads programs in static mode only
    try:
        program = paddle.static.deserialize_program(content)
        if program.blocks and program.global_block().ops:
            return program
        raise UserError(f"{model_file}: an empty program; write it again with export.py")
    except (RuntimeError, ValueError, TypeError, KeyError, SystemError) as error:
        raise UserError(f"{model_file}: not a static model of Paddle") from error
    finally:
        paddle.disable_static()


def _input_shape(model_file: Path) -> list[int]:
    feeds = [op for op in read_program(model_file).global_block().ops if op.type == "feed"]
    if len(feeds) != 1:
        raise UserError(f"{model_file}: takes {len(feeds)} inputs; allowed: one")
    block = feeds[0].block
    return list(block.var(feeds[0].output("Out")[0]).shape)


def require_gpu() -> None:
    """Raises UserError where no GPU can be used."""
    if not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0:
        raise UserError(
            "a GPU was asked for, but this Paddle sees none; leave out --use_gpu, or install "
            "paddlepaddle-gpu"
        )


def load_predictor(
    model_file: Path, params_file: Path | None, engine: str, cpu_threads: int
) -> Predictor:
    """A predictor of the engine asked for. 'auto' times OpenVINO and Paddle's own kernels on a
    clip of zeros, takes the faster one that gives finite numbers, and logs what it saw. oneDNN is
    tried only where neither works: it was several times slower on every CPU measured
    (docs/performance.md), and timing it would cost more than it could win."""
    if engine != "auto":
        return Predictor(model_file, params_file, engine=engine, cpu_threads=cpu_threads)
    model_files(model_file, params_file)
    working: list[tuple[float, Predictor]] = []
    seen: list[str] = []
    for name in CPU_ENGINES:
        if name == "onednn" and working:
            break
        try:
            predictor = Predictor(model_file, params_file, engine=name, cpu_threads=cpu_threads)
            seconds = _trial(predictor)
        except (UserError, RuntimeError) as error:
            seen.append(f"{name} does not run it ({' '.join(str(error).split())[:120]})")
            continue
        seen.append(f"{name} {1000 * seconds:.0f} ms a clip")
        working.append((seconds, predictor))
    if not working:
        raise UserError(f"{model_file}: no engine runs it: {'; '.join(seen)}")
    chosen = min(working, key=lambda pair: pair[0])[1]
    logging.info("Engine: %s (auto, the fastest that works: %s)", chosen.engine, "; ".join(seen))
    return chosen


def _trial(predictor: Predictor) -> float:
    """Seconds of the second run on zeros. Raises UserError where the answer is not finite."""
    clips = np.zeros([max(size, 1) for size in predictor.input_shape], np.float32)
    for _ in range(2):
        start = time.perf_counter()
        logits = predictor.run(clips)[0]
        seconds = time.perf_counter() - start
    if not np.isfinite(logits).all():
        raise UserError("it gives NaN for a clip of zeros")
    return seconds
