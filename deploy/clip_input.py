"""Raw clips -> the input of a static model: checks, preparation by the model's pipeline, and how
far a clip may be truncated. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dataset import identity
from dataset.padding import joint_exists, valid_length
from dataset.pipeline import LARGEST, ClipPipeline, unusable
from dataset.skeletons import Skeleton, from_mapping
from dataset.storage import ClipSet
from deploy.exporting.contracts import CONTRACTS
from deploy.meta import StaticMeta
from errors import UserError

# Size of a body: above the first it is not in metres, from the second on in millimetres.
MAX_METRES, MIN_MILLIMETRES = 10.0, 300.0
MAX_SCORE = 1.5  # third values of joints in an image; OpenPose's slightly exceed 1
SIZED_CLIPS = 16  # of a file, spread evenly, that tell its unit


@dataclass(frozen=True)
class ClipInput:
    """skeleton, clip_persons: V and M of the network's clips. tail_margin, tail_stride: how far a
    clip with a constant tail may be truncated, in frames (model/timing.py); 0, 0: not at all.
    transform: clips are transformed, and padded as that does it, by repeating their frames."""

    skeleton: Skeleton
    pipeline: ClipPipeline
    clip_persons: int
    tail_margin: int = 0
    tail_stride: int = 0
    transform: bool = False

    def check_shape(self, shape: tuple[int, ...], source: str) -> None:
        """Raises UserError, starting with `source`, for anything but (N, 3, T, V, M) with M at most
        the network's persons."""
        joints, persons = self.skeleton.num_joint, self.clip_persons
        wanted = f"the model wants (N, 3, T, {joints}, {persons}), or fewer persons"
        if len(shape) != 5 or shape[1] != 3 or 0 in shape:
            raise UserError(f"{source}: shape {tuple(shape)}; {wanted}")
        _, _, t, v, m = shape
        found = f"{source}: {t} frames, {v} joints, {m} persons"
        if v != joints:
            raise UserError(f"{found}; {wanted}")
        if m > persons:
            keep = f"keep {persons} of them, as main.py -gd does with the recordings"
            raise UserError(f"{found}; {wanted}: {keep}")

    @np.errstate(invalid="ignore")  # NaN, which `check_range` refuses
    def check_metres(self, clips: np.ndarray, source: str) -> None:
        """Raises UserError, starting with `source`, where the bodies in clips (N, 3, T, V, M) are
        too large for metres. It reads some of the clips."""
        if self.pipeline.num_axis != 3:
            return
        chosen = np.unique(np.linspace(0, len(clips) - 1, SIZED_CLIPS).astype(int))
        sizes = [size for n in chosen if (size := body_size(clips[n])) > 0]
        body = float(np.median(sizes)) if sizes else 0.0
        if body <= MAX_METRES:
            return
        third = clips[chosen, 2]
        if third.min() >= 0 and third.max() <= MAX_SCORE:
            unit, fix = "pixels with scores", "it needs recordings in three dimensions"
        elif body >= MIN_MILLIMETRES:
            unit, fix = "millimetres", "divide them by 1000, or make the data with main.py -gd "
            fix += "--set dataset_args.keypoint.unit=millimetre"
        else:
            unit, fix = "centimetres", "convert them"
        raise UserError(
            f"{source}: the typical body size is {body:.4g}: the coordinates seem to be {unit}, "
            f"and the model wants metres; {fix}"
        )

    def prepare(
        self, clips: ArrayLike, lengths: Sequence[int] | None
    ) -> tuple[np.ndarray, Sequence[int | None]]:
        """Clips (N, 3, T, V, M) in metres, checked, as (N, 3, num_frame, V, clip_persons), and of
        each the frames before its zero-padded tail, None where `frames_needed` has to find it.
        lengths: the same of the clips given. Fewer frames and persons are padded, as in training.
        Raises UserError for another shape, values that are not real numbers, NaN, infinity, and a
        clip that is not zero from its length on."""
        array = real_numbers(clips)
        self.check_shape(array.shape, "clips")
        check_range(array)
        empty_slots = self.clip_persons - array.shape[-1]
        if empty_slots:
            array = np.pad(array, [(0, 0)] * 4 + [(0, empty_slots)])
        frames = self.pipeline.min_frames
        repeats = self.transform and array.shape[2] < frames
        filled = [repeated(clip, frames) for clip in array] if repeats else array
        prepared = np.stack([self.pipeline.prepare(clip, self.skeleton) for clip in filled])
        if lengths is not None and len(lengths) != len(array):
            raise UserError(f"{len(lengths)} lengths for {len(array)} clips; allowed: one for each")
        if lengths is None or not self.tail_stride or self.pipeline.resample or repeats:
            return prepared, [None] * len(array)
        check_lengths(array, lengths)
        return prepared, [min(length, self.pipeline.num_frame) for length in lengths]

    def features(self, clip: np.ndarray) -> np.ndarray:
        """Prepared clip (3, T, V, M) -> one row of the model's input, (M*V, I*C, T) float32."""
        return self.pipeline.features(clip, self.skeleton)

    def frames_needed(self, clip: np.ndarray, step: int, length: int | None = None) -> int:
        """Frames to which a prepared clip (C, T, V, M) may be truncated without changing its
        logits: those before its constant tail, and the network's margin (model/tail.py), rounded
        up to a multiple of step. length: see `changing_frames`."""
        num_frame, stride = clip.shape[1], self.tail_stride
        if not stride:
            return num_frame
        look_ahead = -(-self.pipeline.look_ahead // stride) * stride
        start = -(-changing_frames(clip, length) // stride) * stride
        step = math.lcm(stride, step)
        needed = -(-(start + max(self.tail_margin, look_ahead)) // step) * step
        return min(needed, num_frame)


def input_of(meta: StaticMeta, shapes: list[list[int]]) -> ClipInput:
    """The input of an exported model. shapes: of its inputs, -1 for a dynamic axis. Raises
    UserError where they do not fit the metadata, and for a model of another contract."""
    if not CONTRACTS[meta.contract].predictor:
        runs = "run it with infer.py --stream" if meta.stream else "for programs of others"
        raise UserError(
            f"the model follows the {meta.contract} contract ({runs}, docs/export.md); for clips, "
            "export again with --contract clips"
        )
    return fitting_input(meta, shapes)


def fitting_input(meta: StaticMeta, shapes: list[list[int]]) -> ClipInput:
    """The same, for a model of any contract."""
    layout = from_mapping(meta.skeleton, "skeleton of .meta.yaml")
    expected = list(meta.inputs(layout.num_joint).values())
    if shapes != expected:
        raise UserError(
            f"the model takes {shapes}, its .meta.yaml says {expected}: they do not belong "
            "together; export again"
        )
    tail = (meta.tail_margin, meta.tail_stride)
    return ClipInput(layout, meta.clip_pipeline(), meta.clip_persons, *tail, meta.transform)


def check_data(clips: ClipSet, meta: StaticMeta, accept: Collection[str]) -> None:
    """Raises UserError for data of another kind than the model was trained on, unless accept names
    the difference, and for labels that are not classes of the model."""
    num_class = len(meta.class_names)
    if clips.manifest:
        dataset = clips.manifest.get("dataset", meta.dataset)
        fix = f"Make such data with: python main.py -c {meta.config} -gd -d {dataset}"
        if clips.manifest["transform"] != meta.transform:
            fix += f" --set dataset_args.ntu.transform={str(meta.transform).lower()}"
        identity.compare(
            identity.of_manifest(clips.manifest),
            meta.identity(),
            source=f"{clips.path}: its manifest",
            other="the model",
            fix=fix,
            accept=accept,
        )
    if num_class and clips.labels is not None and clips.labels.max() >= num_class:
        raise UserError(
            f"{clips.path}: label {clips.labels.max()}; the model has classes 0 to {num_class - 1}"
        )


def body_size(clip: np.ndarray) -> float:
    """Longest side of a body's bounding box, median over the frames and persons of a clip (3, T, V,
    M), in its unit; 0 for an empty one. Values that `check_range` refuses do not count."""
    clip = clip.astype(np.float64)
    joints = joint_exists(clip) & (np.abs(clip) <= LARGEST).all(axis=0)  # T, V, M
    bodies = joints.any(axis=1)  # T, M
    low = np.where(joints, clip, np.inf).min(axis=2)[:, bodies]
    high = np.where(joints, clip, -np.inf).max(axis=2)[:, bodies]  # 3, bodies
    return float(np.median((high - low).max(axis=0))) if bodies.any() else 0.0


def repeated(clip: np.ndarray, size: int) -> np.ndarray:
    """Each person's frames up to the last occupied one, repeated to `size` frames, as the transform
    fills a clip: (C, T, V, M) -> (C, size, V, M)."""
    c, _, v, persons = clip.shape
    filled = np.zeros((c, size, v, persons), clip.dtype)
    for m in range(persons):
        length = valid_length(clip[..., m : m + 1])
        if length:
            filled[..., m] = clip[..., m][:, np.arange(size) % length]
    return filled


def real_numbers(clips: ArrayLike) -> np.ndarray:
    """As a float array. Raises UserError for anything but real numbers in lists of equal length."""
    try:
        array = np.asarray(clips)
    except ValueError as error:
        raise UserError("clips: lists of unequal length; allowed: (N, 3, T, V, M)") from error
    if array.dtype.kind not in "fiu":
        raise UserError(f"clips: an array of {array.dtype}; allowed: real numbers")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def check_range(clips: np.ndarray) -> None:
    """Raises UserError for NaN, infinity and numbers too large for a coordinate."""
    for n, clip in enumerate(clips):
        if found := unusable(clip):
            raise UserError(f"clip {n} of this batch holds {found}")


def check_lengths(clips: np.ndarray, lengths: Sequence[int]) -> None:
    """Raises UserError where a clip (C, T, V, M) is not zero from its length on: truncating it
    would change its logits."""
    for n, (clip, length) in enumerate(zip(clips, lengths)):
        found = f"clip {n} of this batch has length {length}"
        if not 0 <= length <= clip.shape[1]:
            raise UserError(f"{found}; allowed: 0 to {clip.shape[1]} frames")
        if clip[:, length:].any():
            raise UserError(
                f"{found}, but data up to frame {valid_length(clip) - 1}; allowed: zeros from "
                f"frame {length} on; the labels belong to other data, make both with: python "
                "main.py -c <config> -gd"
            )


def changing_frames(clip: np.ndarray, length: int | None) -> int:
    """Frames of a clip (C, T, V, M) before its constant tail. length: its frames before a
    zero-padded tail, where known; then all frames but the last of them are rarely read."""
    if length is None:
        moves = (clip != clip[:, -1:]).any(axis=(0, 2, 3))
        return int(np.flatnonzero(moves)[-1]) + 1 if moves.any() else 0
    if length and clip[:, length - 1].any():
        return length
    return valid_length(clip[:, :length])  # a person who left early, or an empty last frame
