"""A pose network in OpenVINO, one image at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino

from deploy.engines.program_cache import compiled
from deploy.engines.program_check import check_program
from errors import UserError
from safe_io import file_hash


class Network:
    """A .tflite or .onnx file with one input. inputs, outputs: their shapes, -1 for a dynamic
    axis. is_float: whether it takes float32."""

    def __init__(self, file: Path, num_thread: int) -> None:
        """Raises UserError for a missing file, a damaged one, one with several inputs, and an .onnx
        file that may do more than compute."""
        self._file, self._num_thread = file, num_thread
        if not os.path.isfile(file):
            raise UserError(f"{file}: no such file")
        if file.suffix == ".onnx":
            check_program(file)
        self._core = openvino.Core()
        # Two threads that create OpenVINO's first tensors at the same time deadlock: the first
        # one is created here.
        openvino.Tensor(np.zeros(1, np.float32), shared_memory=True)
        self._identity = file_hash(file)  # of the network with its changes
        try:
            self._model = self._core.read_model(str(file))
            self.inputs = [_shape_of(port) for port in self._model.inputs]
            self.outputs = [_shape_of(port) for port in self._model.outputs]
        except RuntimeError as error:
            raise UserError(f"{file}: OpenVINO cannot read it: {_reason(error)}") from error
        if len(self.inputs) != 1:
            raise UserError(f"{file}: has {len(self.inputs)} inputs; allowed: 1")
        self.is_float = self._model.input().element_type == openvino.Type.f32

    def fix(self, shape: Sequence[int]) -> None:
        """Gives the input a shape, before `compile`. Raises UserError where it cannot have it."""
        try:
            self._model.reshape(list(shape))
            self._identity += f" fix {list(shape)}"
        except RuntimeError as error:
            raise UserError(f"{self._file}: no input of {list(shape)}: {_reason(error)}") from error

    def keep(self, outputs: Sequence[int]) -> None:
        """Drops all other outputs, and the work for them. Before `compile`."""
        kept = [self._model.output(number) for number in outputs]
        self._model = openvino.Model(kept, self._model.get_parameters(), self._model.get_name())
        self._identity += f" keep {list(outputs)}"

    def take_bytes(self, low: float, high: float) -> None:
        """Makes it take uint8, 0 as `low` and 255 as `high`. Before `compile`."""
        steps = openvino.preprocess.PrePostProcessor(self._model)
        steps.input().tensor().set_element_type(openvino.Type.u8)
        scale = 255 / (high - low)
        steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(-low * scale).scale(
            scale
        )
        self._model = steps.build()
        self._identity += f" take_bytes {low} {high}"

    def compile(self) -> Network:
        """Makes it ready to run. Raises UserError for what OpenVINO cannot run."""
        settings = {
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._num_thread,
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 moves key points visibly
            "ENABLE_CPU_PINNING": False,  # several processes would share the same cores
        }
        try:
            program = compiled(self._core, self._model, self._identity, settings)
            self._request = program.create_infer_request()
        except RuntimeError as error:
            raise UserError(f"{self._file}: OpenVINO cannot run it: {_reason(error)}") from error
        return self

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """All outputs, in the order of the file. image: a batch of one. Raises UserError where the
        network fails on it."""
        try:
            results = self._request.infer([np.ascontiguousarray(image)], share_inputs=True)
        except RuntimeError as error:
            raise UserError(f"{self._file}: OpenVINO cannot run it: {_reason(error)}") from error
        return [np.array(results[port]) for port in results]


def _shape_of(port: openvino.Output) -> list[int]:
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return []
    return [axis.get_length() if axis.is_static else -1 for axis in shape]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[-200:]
