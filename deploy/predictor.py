"""Raw clips -> logits through a static model: preprocessing by its contract, its constant tail
cut, padding, and one person at a time where the model allows it.

    predictor = Predictor.load("xsub.pdmodel")
    logits = predictor.run(clips).logits  # clips: (N, 3, T, 25, 2) metres
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dataset.features import branch_channels, person_exists
from dataset.pipeline import ClipPipeline
from dataset.skeletons import from_mapping, skeleton
from dataset.storage import ClipSet
from deploy.engines.engine import AUTO, Engine, open_engine
from deploy.engines.probe import try_apart
from deploy.exporting.contracts import CONTRACTS
from deploy.meta import StaticMeta, read_meta
from errors import UserError
from safe_io import PathLike
from utils import num_cores

PORT_RANK = 6  # the public port's static models take (N, I, C, T, V, M)
LARGEST = 1e9  # coordinate, in any unit; float32 has room above for what a network multiplies


@dataclass(frozen=True)
class Scores:
    """logits: (N, num_class) of each clip. person_logits: (N, M, num_class) from per-person
    models, else None. exists: (N, M), which person slots hold anybody."""

    logits: np.ndarray
    person_logits: np.ndarray | None
    exists: np.ndarray


class Predictor:
    """An engine and the preprocessing that its model's files ask for. Not thread-safe: one
    predictor a thread.

    inputs: the branches of a public port's model, which has no meta file to say; must be empty
    for models that have one. Raises UserError where the two do not go together.
    """

    def __init__(self, engine: Engine, meta: StaticMeta | None, inputs: str = "") -> None:
        self.engine, self.meta = engine, meta
        self._empty_logits: np.ndarray | None = None
        # One thread more than the engine takes: it makes features while the engine works.
        self._turn = threading.Semaphore(engine.streams)
        self._pool = ThreadPoolExecutor(max(engine.streams, 2))
        shape = next(iter(engine.inputs.values()))
        self.batch_size = max(shape[0], 0)  # 0: free
        if meta is None:
            self._from_port(shape, inputs or "JVB")
            return
        if inputs:
            raise UserError("--inputs is for models without .meta.yaml; this one has it: leave out")
        if not CONTRACTS[meta.contract].predictor:
            raise UserError(
                f"the model follows the {meta.contract} contract, for programs with preprocessing "
                "of their own (docs/export.md); export again with --contract clips"
            )
        self.port_contract = False
        self.skeleton = from_mapping(meta.skeleton, "skeleton of .meta.yaml")
        self.pipeline = meta.clip_pipeline()
        self.persons, self.clip_persons = meta.persons, meta.clip_persons
        self.per_person, self.class_names = meta.per_person, meta.class_names
        self.tail = (meta.tail_margin, meta.tail_stride)
        expected = meta.input_shapes(self.skeleton.num_joint)
        if list(engine.inputs.values()) != expected:
            raise UserError(
                f"the model takes {list(engine.inputs.values())}, its .meta.yaml says {expected}: "
                "they do not belong together; export again"
            )

    @classmethod
    def load(
        cls,
        model_file: PathLike,
        *,
        params_file: PathLike | None = None,
        engine: str = AUTO,
        cpu_threads: int | None = None,
        inputs: str = "",
    ) -> Predictor:
        """model_file: .pdmodel, .json or .onnx. params_file: default: .pdiparams beside it.
        engine: see deploy/engines/engine.py. cpu_threads: default: all cores. Raises UserError."""
        model_file = Path(model_file)
        params_file = Path(params_file or model_file.parent / f"{model_file.stem}.pdiparams")
        meta = read_meta(model_file)
        cpu_threads = cpu_threads or num_cores()
        if meta:
            meta.check_files(model_file, params_file)
        elif model_file.is_file():
            try_apart(model_file, params_file, engine, cpu_threads)
        opened = open_engine(model_file, params_file, engine, cpu_threads)
        return cls(opened, meta, inputs)

    def _from_port(self, shape: list[int], inputs: str) -> None:
        """The contract of a model without meta file, from its input shape (N, I, C, T, V, M)."""
        channels = branch_channels(inputs)
        layout = skeleton("ntu-25")
        wanted = [len(channels), channels[0], layout.num_joint]
        if len(shape) != PORT_RANK or [shape[1], shape[2], shape[4]] != wanted:
            raise UserError(
                f"the model has no .meta.yaml beside it and takes {shape}; allowed without: the "
                f"public port's (N, {len(channels)}, {channels[0]}, T, 25, M) for --inputs {inputs}"
            )
        self.port_contract, self.per_person = True, False
        self.skeleton, self.pipeline = layout, ClipPipeline(inputs, shape[3])
        self.persons = self.clip_persons = shape[5]
        self.class_names: list[str] = []
        self.tail = (0, 0)

    def check_data(self, clips: ClipSet) -> None:
        """Raises UserError where a data set is not what the model was made for."""
        meta, manifest = self.meta, clips.manifest
        self._check_shape(clips.data.shape, str(clips.path))
        if meta and manifest and manifest["transform"] != meta.transform:
            kind = {True: "transformed", False: "original (not transformed)"}
            raise UserError(
                f"{clips.path} is {kind[manifest['transform']]}, the model wants "
                f"{kind[meta.transform]} data; make it with: python main.py -c {meta.config} -gd "
                f"-d {manifest.get('dataset', meta.dataset)} --set "
                f"dataset_args.ntu.transform={str(meta.transform).lower()}"
            )
        num_class = len(self.class_names)
        if num_class and clips.labels is not None and clips.labels.max() >= num_class:
            raise UserError(
                f"{clips.path}: label {clips.labels.max()}; the model has classes 0 to "
                f"{num_class - 1}"
            )

    def _check_shape(self, shape: tuple[int, ...], source: str) -> None:
        shortest = self.pipeline.min_frames
        wanted = f"(N, 3, T, {self.skeleton.num_joint}, {self.clip_persons}), T {shortest} or more"
        if len(shape) != 5 or shape[1] != 3 or shape[0] < 1:
            raise UserError(f"{source}: shape {tuple(shape)}; the model wants {wanted}")
        _, _, t, v, m = shape
        if (v, m) != (self.skeleton.num_joint, self.clip_persons) or t < shortest:
            raise UserError(
                f"{source}: {t} frames, {v} joints, {m} persons; the model wants {wanted}"
            )

    def run(self, clips: ArrayLike) -> Scores:
        """clips: (N, 3, T, V, M) metres, N 1 or more. Raises UserError for another shape, for what
        are no real numbers, for NaN and for infinity."""
        clips = real_numbers(clips)
        self._check_shape(clips.shape, "clips")
        check_range(clips)
        clips = np.stack([self.pipeline.prepare(clip, self.skeleton) for clip in clips])
        exists = person_exists(clips)
        if self.per_person:
            persons = self._run_persons(clips, exists)
            return Scores(persons.mean(axis=1), persons, exists)
        return Scores(self._logits(list(clips)), None, exists)

    def _run_persons(self, clips: np.ndarray, exists: np.ndarray) -> np.ndarray:
        """Logits (N, M, num_class). Only persons that exist are run; an empty slot's logits are a
        constant of the model. The clip's logits are the mean over persons, because the head is
        linear."""
        if self._empty_logits is None:
            self._empty_logits = self._logits([np.zeros_like(clips[0, ..., :1])])[0]
        persons = np.tile(self._empty_logits, (*exists.shape, 1))  # (N, M, num_class)
        if exists.any():
            slots = zip(*np.nonzero(exists))
            persons[exists] = self._logits([clips[n, ..., m : m + 1] for n, m in slots])
        return persons

    def _logits(self, clips: list[np.ndarray]) -> np.ndarray:
        """Logits of clips (3, T, V, persons), in batches of equal length."""
        batches = list(self._batches(clips))

        def work(batch: tuple[list[int], int]) -> np.ndarray:
            rows, frames = batch
            tensors = np.stack([self._tensor(clips[row][:, :frames]) for row in rows])
            return self._run_batch(tensors, alone=len(batches) == 1)

        by_batch = self._pool.map(work, batches) if len(batches) > 1 else map(work, batches)
        logits = np.concatenate(list(by_batch))
        logits[[row for rows, _ in batches for row in rows]] = logits.copy()
        if not np.isfinite(logits).all():
            raise UserError("the model answers with NaN or infinity: its files are damaged")
        if self.class_names and logits.shape[1] != len(self.class_names):
            raise UserError(
                f"the model has {logits.shape[1]} classes, its .meta.yaml names "
                f"{len(self.class_names)}: they do not belong together; export again"
            )
        return logits

    def _batches(self, clips: list[np.ndarray]) -> Iterator[tuple[list[int], int]]:
        """(rows, frames that they need) of what may run together. The longest come first: then no
        thread is left with a long one at the end."""
        needed = [
            frames_needed(clip, *self.tail, self.engine.frame_step, self.pipeline.look_ahead)
            for clip in clips
        ]
        order = sorted(range(len(clips)), key=needed.__getitem__, reverse=True)
        size = self.batch_size or self.engine.batch
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, needed[rows[0]]

    def _run_batch(self, batch: np.ndarray, alone: bool) -> np.ndarray:
        """Logits of as many as there are; a model of a fixed batch gets zeros behind them."""
        count = len(batch)
        missing = max(self.batch_size - count, 0)
        if missing:
            batch = np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))
        first, *others = self.engine.inputs
        feeds = {first: batch}
        if others:
            share = 1 - batch.shape[-1] / self.pipeline.num_frame
            feeds[others[0]] = np.full((len(batch), 1, 1, 1), share, np.float32)
        with self._turn:
            return self.engine.run(feeds, alone=alone)[0][:count]

    def _tensor(self, clip: np.ndarray) -> np.ndarray:
        tensor = self.pipeline.features(clip, self.skeleton)  # (M*V, I*C, T)
        if not self.port_contract:
            return tensor
        v, i = self.skeleton.num_joint, len(self.pipeline.channels)
        apart = tensor.reshape(self.persons, v, i, -1, self.pipeline.num_frame)  # (M, V, I, C, T)
        return apart.transpose(2, 3, 4, 1, 0)  # (I, C, T, V, M)


def real_numbers(clips: ArrayLike) -> np.ndarray:
    """As an array. Raises UserError for text, objects, truth values, complex numbers and lists of
    unequal length."""
    try:
        array = np.asarray(clips)
    except ValueError as error:
        raise UserError("clips: lists of unequal length; allowed: (N, 3, T, V, M)") from error
    if array.dtype.kind not in "fiu":
        raise UserError(f"clips: an array of {array.dtype}; allowed: real numbers")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def check_range(clips: np.ndarray) -> None:
    """Raises UserError for NaN, infinity and numbers that no coordinate has."""
    for n, clip in enumerate(clips):
        low, high = float(clip.min()), float(clip.max())
        if not np.isfinite([low, high]).all():
            raise UserError(f"clip {n} of this batch holds NaN or infinity")
        if max(-low, high) > LARGEST:
            raise UserError(
                f"clip {n} of this batch holds {max(-low, high):.3g}; allowed: coordinates up to "
                f"{LARGEST:g}"
            )


def frames_needed(clip: np.ndarray, margin: int, stride: int, step: int, look_ahead: int) -> int:
    """Frames that a clip (C, T, V, M) may be cut to without changing its logits: up to where it
    stops changing, and the network's margin behind (model/tail.py), up to a multiple of step.
    stride 0: all of them."""
    num_frame = clip.shape[1]
    if not stride:
        return num_frame
    moves = (clip != clip[:, -1:]).any(axis=(0, 2, 3))
    changing = int(np.flatnonzero(moves)[-1]) + 1 if moves.any() else 0
    needed = -(-changing // stride) * stride + max(margin, -(-look_ahead // stride) * stride)
    step = math.lcm(stride, step)
    return min(-(-needed // step) * step, num_frame)
