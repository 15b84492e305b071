"""Raw clips -> logits through a static model: preprocessing by its contract, padding, and one
person at a time where the model allows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataset.features import branch_channels, clip_tensor, person_exists
from dataset.preprocess import Preprocess
from dataset.skeletons import from_mapping, skeleton
from dataset.storage import ClipSet
from deploy.predictor import Predictor
from safe_io import UserError

PORT_RANK = 6  # the public port's static models take (N, I, C, T, V, M)


@dataclass(frozen=True)
class Scores:
    """logits: (N, num_class) of each clip. person_logits: (N, M, num_class) from per-person
    models, else None. exists: (N, M), which person slots hold anybody."""

    logits: np.ndarray
    person_logits: np.ndarray | None
    exists: np.ndarray


class ClipModel:
    """A predictor and the preprocessing that its files ask for.

    inputs: the branches of a public port's model, which has no meta file to say; must be empty
    for models that have one. Raises UserError where the two do not go together.
    """

    def __init__(self, predictor: Predictor, inputs: str = "") -> None:
        self.predictor, meta = predictor, predictor.meta
        self._empty_logits: np.ndarray | None = None
        shape = predictor.input_shape
        if meta is None:
            self._from_port(shape, inputs or "JVB")
            return
        if inputs:
            raise UserError("--inputs is for models without .meta.yaml; this one has it: leave out")
        self.port_contract = False
        self.inputs, self.num_frame = meta.inputs, meta.num_frame
        self.skeleton = from_mapping(meta.skeleton, "skeleton of .meta.yaml")
        self.preprocess = Preprocess(meta.num_frame, meta.resample, meta.centre, meta.num_axis)
        self.persons, self.clip_persons = meta.persons, meta.clip_persons
        self.per_person, self.class_names = meta.per_person, meta.class_names
        channels = sum(branch_channels(meta.inputs))
        expected = [meta.persons * self.skeleton.num_joint, channels, meta.num_frame]
        if shape != [meta.batch_size or -1, *expected]:
            raise UserError(
                f"the model takes {shape}, its .meta.yaml says {expected} a clip in batches of "
                f"{meta.batch_size or 'any size'}: they do not belong together; export again"
            )
        self.batch_size = max(shape[0], 0)

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
        self.inputs, self.skeleton, self.num_frame = inputs, layout, shape[3]
        self.preprocess = Preprocess(self.num_frame)
        self.persons = self.clip_persons = shape[5]
        self.class_names: list[str] = []
        self.batch_size = max(shape[0], 0)

    def check_data(self, clips: ClipSet) -> None:
        """Raises UserError where a data set is not what the model was made for."""
        meta, manifest = self.predictor.meta, clips.manifest
        _, _, t, v, m = clips.data.shape
        shortest = 1 if self.preprocess.resample else self.num_frame
        if (v, m) != (self.skeleton.num_joint, self.clip_persons) or t < shortest:
            raise UserError(
                f"{clips.path}: {t} frames, {v} joints, {m} persons; the model wants "
                f"{shortest} frames or more, {self.skeleton.num_joint} joints, "
                f"{self.clip_persons} persons"
            )
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

    def run(self, clips: np.ndarray) -> Scores:
        """clips: (N, 3, T, V, M) metres. Raises UserError for NaN and infinity."""
        bad = [n for n, clip in enumerate(clips) if not np.isfinite(clip).all()]
        if bad:
            raise UserError(f"clip {bad[0]} of this batch holds NaN or infinity")
        clips = np.stack([self.preprocess.apply(clip, self.skeleton) for clip in clips])
        exists = person_exists(clips)
        if self.per_person:
            persons = self._run_persons(clips, exists)
            return Scores(persons.mean(axis=1), persons, exists)
        return Scores(self._logits([self._tensor(clip) for clip in clips]), None, exists)

    def _run_persons(self, clips: np.ndarray, exists: np.ndarray) -> np.ndarray:
        """Logits (N, M, num_class). Only persons that exist are run; an empty slot's logits are a
        constant of the model. The clip's logits are the mean over persons, because the head is
        linear."""
        if self._empty_logits is None:
            self._empty_logits = self._logits([self._tensor(np.zeros_like(clips[0, ..., :1]))])[0]
        persons = np.tile(self._empty_logits, (*exists.shape, 1))  # (N, M, num_class)
        if exists.any():
            slots = zip(*np.nonzero(exists))
            tensors = [self._tensor(clips[n, ..., m : m + 1]) for n, m in slots]  # (V, I*C, T)
            persons[exists] = self._logits(tensors)
        return persons

    def _tensor(self, clip: np.ndarray) -> np.ndarray:
        tensor = clip_tensor(clip, self.skeleton, self.inputs)  # (M*V, I*C, T)
        if not self.port_contract:
            return tensor
        v, i = self.skeleton.num_joint, len(self.inputs)
        apart = tensor.reshape(self.persons, v, i, -1, self.num_frame)  # (M, V, I, C, T)
        return apart.transpose(2, 3, 4, 1, 0)  # (I, C, T, V, M)

    def _logits(self, tensors: list[np.ndarray]) -> np.ndarray:
        """Logits of every tensor, in batches of the model's size where that is fixed."""
        logits = np.concatenate(
            [self.predictor.run(b)[0][:n] for b, n in _batches(tensors, self.batch_size)]
        )
        if self.class_names and logits.shape[1] != len(self.class_names):
            raise UserError(
                f"the model has {logits.shape[1]} classes, its .meta.yaml names "
                f"{len(self.class_names)}: they do not belong together; export again"
            )
        return logits


def _batches(tensors: list[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """(batch, how many of it count); a fixed size fills the last batch up with zeros."""
    size = size or len(tensors)
    for start in range(0, len(tensors), size):
        batch = np.stack(tensors[start : start + size])
        missing = size - len(batch)
        padded = np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1)) if missing else batch
        yield padded, len(batch)
