"""Raw clips -> logits through a static model: scheduling of batches, threads and persons.

predictor = Predictor.load("xsub.pdmodel")
logits = predictor.run(clips).logits  # clips: (N, 3, T, 25, 2) metres
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dataset.features import person_exists
from dataset.storage import ClipSet
from deploy.clip_input import ClipInput, check_data, input_of
from deploy.engines.engine import AUTO, Engine, open_engine
from deploy.meta import StaticMeta, read_meta
from deploy.port_model import port_input
from errors import UserError
from safe_io import PathLike
from utils import num_cores


@dataclass(frozen=True)
class Scores:
    """logits: (N, num_class) of each clip. person_logits: (N, M, num_class) from per-person
    models, else None. exists: (N, M), True for occupied person slots."""

    logits: np.ndarray
    person_logits: np.ndarray | None
    exists: np.ndarray


class Predictor:
    """An engine and the preprocessing that its model's metadata asks for. Not thread-safe: use one
    predictor per thread. inputs: the branches of a model of the public port, which has no metadata.
    Raises UserError where engine and metadata do not fit together."""

    def __init__(self, engine: Engine, meta: StaticMeta | None, inputs: str = "") -> None:
        if meta and inputs:
            raise UserError("--inputs is for models without .meta.yaml; this one has it: leave out")
        self.engine, self.meta = engine, meta
        shapes = list(engine.inputs.values())
        self.input: ClipInput = input_of(meta, shapes) if meta else port_input(shapes[0], inputs)
        self.skeleton, self.pipeline = self.input.skeleton, self.input.pipeline
        self.clip_persons = self.input.clip_persons
        self.per_person = meta is not None and meta.per_person
        self.class_names = meta.class_names if meta else []
        self.has_feature = meta is not None and "feature" in meta.outputs and not meta.per_person
        self.batch_size = max(shapes[0][0], 0)  # 0: dynamic
        self._empty_logits: np.ndarray | None = None
        # One thread more than may run the engine: it computes features meanwhile.
        self._running = threading.Semaphore(engine.max_concurrency)
        self._pool = ThreadPoolExecutor(max(engine.max_concurrency, 2))

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
        return cls(open_engine(model_file, params_file, engine, cpu_threads), meta, inputs)

    def check_data(self, clips: ClipSet, accept: Collection[str] = ()) -> None:
        """Raises UserError where a data set does not fit the model. accept: settings that may
        differ (dataset/identity.py)."""
        self.input.check_shape(clips.data.shape, str(clips.path))
        if self.meta:
            check_data(clips, self.meta, accept)
        self.input.check_metres(clips.data, str(clips.path))

    def run(self, clips: ArrayLike, lengths: Sequence[int] | None = None) -> Scores:
        """clips: (N, 3, T, V, M) metres, N and T 1 or more, M up to that of the model. lengths:
        frames of each clip before its zero-padded tail, where known (`ClipSet.tail_lengths`); it
        saves the search for the tail. Raises UserError as `ClipInput.prepare`."""
        prepared, known = self.input.prepare(clips, lengths)
        exists = person_exists(prepared)
        if self.per_person:
            persons = self._run_persons(prepared, known, exists)
            return Scores(persons.mean(axis=1), persons, exists)
        return Scores(self._logits(list(prepared), known), None, exists)

    def intensity(self, clip: np.ndarray) -> np.ndarray:
        """(3, T, V, M) metres -> (T', V, M), the length of the feature at each joint: how much the
        network makes of it (Yan et al., 2018). Of a model exported --with_feature."""
        prepared, _ = self.input.prepare(clip[None], None)
        tensor = self.input.features(prepared[0])[None]
        with self._running:
            feature = self.engine.run({next(iter(self.engine.inputs)): tensor})[1]
        return np.sqrt((feature**2).sum(axis=1)).transpose(1, 2, 0)  # (P, C', T', V)

    def _run_persons(
        self, clips: np.ndarray, lengths: Sequence[int | None], exists: np.ndarray
    ) -> np.ndarray:
        """Logits (N, M, num_class), whose mean over M is the clip's, because the head is linear.
        Only occupied person slots are run; the logits of an empty one are a constant."""
        if self._empty_logits is None:
            self._empty_logits = self._logits([np.zeros_like(clips[0, ..., :1])], [None])[0]
        persons = np.tile(self._empty_logits, (*exists.shape, 1))  # (N, M, num_class)
        if exists.any():
            rows, slots = np.nonzero(exists)
            occupied = [clips[n, ..., m : m + 1] for n, m in zip(rows, slots)]
            persons[exists] = self._logits(occupied, [lengths[n] for n in rows])
        return persons

    def _logits(self, clips: list[np.ndarray], lengths: Sequence[int | None]) -> np.ndarray:
        """Logits of prepared clips (3, T, V, persons), in batches of equal length."""
        step = self.engine.frame_step
        needed = [self.input.frames_needed(clip, step, n) for clip, n in zip(clips, lengths)]
        # The longest come first, so that no thread is left with a long one at the end.
        order = sorted(range(len(clips)), key=needed.__getitem__, reverse=True)
        size = self.batch_size or self.engine.preferred_batch
        batches = [order[start : start + size] for start in range(0, len(order), size)]

        def work(rows: list[int]) -> np.ndarray:
            frames = needed[rows[0]]
            tensors = np.stack([self.input.features(clips[row][:, :frames]) for row in rows])
            return self._run_batch(tensors, exclusive=len(batches) == 1)

        by_batch = self._pool.map(work, batches) if len(batches) > 1 else map(work, batches)
        logits = np.concatenate(list(by_batch))
        logits[order] = logits.copy()
        if not np.isfinite(logits).all():
            raise UserError("the model answers with NaN or infinity: its files are damaged")
        if self.class_names and logits.shape[1] != len(self.class_names):
            raise UserError(
                f"the model has {logits.shape[1]} classes, its .meta.yaml names "
                f"{len(self.class_names)}: they do not belong together; export again"
            )
        return logits

    def _run_batch(self, batch: np.ndarray, exclusive: bool) -> np.ndarray:
        """Logits of each row; a model of a fixed batch size gets zeros for the missing ones."""
        count = len(batch)
        if count < self.batch_size:
            batch = np.pad(batch, [(0, self.batch_size - count)] + [(0, 0)] * (batch.ndim - 1))
        first, *others = self.engine.inputs
        feeds = {first: batch}
        if others:
            removed = 1 - batch.shape[-1] / self.pipeline.num_frame  # share of the clip's frames
            feeds[others[0]] = np.full((len(batch), 1, 1, 1), removed, np.float32)
        with self._running:
            return self.engine.run(feeds, exclusive=exclusive)[0][:count]
