"""Live frames of one stream -> features, as the clip network sees them. NumPy only.

Checks, centring and features give the same numbers as `ClipPipeline` gives for the whole clip.
Features that look ahead (velocities) hold back the newest frames until they are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dataset.padding import joint_exists
from dataset.pipeline import LARGEST
from deploy.clip_input import ClipInput, real_numbers
from errors import UserError

MIN_FRAMES = 3  # that the features of a clip need; a stream may be shorter


@dataclass
class StreamInput:
    """The input of one stream. input: of the model. missing: joints that came as NaN so far."""

    input: ClipInput
    missing: int = 0

    def __post_init__(self) -> None:
        layout, persons = self.input.skeleton, self.input.clip_persons
        self._held: np.ndarray = np.zeros((3, 0, layout.num_joint, persons), np.float32)
        self._offset: np.ndarray | None = None  # (num_axis, 1, 1, 1), of the first origin joint
        self._given = 0

    def push(self, clip: np.ndarray) -> np.ndarray:
        """Frames as `checked` gives them -> features of the frames that are now known, (M, V, I*C,
        F')."""
        self._given += clip.shape[1]
        self._held = np.concatenate([self._held, clip], axis=1)
        if not self._centres():
            return self._features(0)
        return self._features(self._held.shape[1] - self.input.pipeline.look_ahead)

    def finish(self) -> np.ndarray:
        """Features of the frames held back, at the end of the stream."""
        if self.input.pipeline.centre and self._offset is None:
            self._offset = np.zeros((self.input.pipeline.num_axis, 1, 1, 1), np.float32)
        return self._features(self._held.shape[1])

    def checked(self, frames: ArrayLike) -> np.ndarray:
        """Frames (3, F, V, M), metres, or x, y, score; M up to that of the model -> (3, F, V, M)
        float32 with all person slots. A joint with NaN is a missing one, all zeros, and counted.
        Raises UserError for anything else."""
        array = real_numbers(frames)
        joints, persons = self.input.skeleton.num_joint, self.input.clip_persons
        allowed = f"allowed: (3, F, {joints}, M) with M up to {persons}"
        if array.ndim != 4 or array.shape[0] != 3 or 0 in array.shape:
            raise UserError(f"frames of shape {array.shape}; {allowed}")
        if array.shape[2] != joints or array.shape[3] > persons:
            raise UserError(
                f"frames of {array.shape[2]} joints and {array.shape[3]} persons; {allowed}"
            )
        lost = np.isnan(array).any(axis=0)
        array = np.where(lost, 0, array)
        if not np.abs(array).max() <= LARGEST:
            raise UserError(f"frames with a coordinate beyond {LARGEST:g}")
        self.missing += int(lost.sum())
        empty = persons - array.shape[3]
        return np.pad(array.astype(np.float32), [(0, 0)] * 3 + [(0, empty)])

    def _centres(self) -> bool:
        """Whether the held frames can be centred, or need not be. Frames with joints wait for the
        first origin joint, for as long as the frames of a clip."""
        pipeline = self.input.pipeline
        if not pipeline.centre or self._offset is not None:
            return True
        origin = self._held[: pipeline.num_axis, :, self.input.skeleton.origin]
        found = np.argwhere(origin.any(axis=0))
        if len(found):
            frame, person = found[0]
            self._offset = origin[:, frame, person].reshape(-1, 1, 1, 1)
        elif self._given >= pipeline.num_frame:
            self._offset = np.zeros((pipeline.num_axis, 1, 1, 1), np.float32)
        return self._offset is not None or not self._held.any()

    def _features(self, known: int) -> np.ndarray:
        """Of the first `known` held frames, which are dropped; zeros are features of empty ones."""
        pipeline, layout = self.input.pipeline, self.input.skeleton
        clip, known = self._held, max(known, 0)
        persons, joints = clip.shape[3], clip.shape[2]
        if not known:
            return np.zeros((persons, joints, sum(pipeline.channels), 0), np.float32)
        if self._offset is not None:
            moved = clip.copy()
            moved[: pipeline.num_axis] -= self._offset
            moved[:, ~joint_exists(clip)] = 0
            clip = moved
        front = max(MIN_FRAMES - clip.shape[1], 0)
        if front:  # features never look back
            clip = np.concatenate([clip[:, :1]] * front + [clip], axis=1)
        features = pipeline.features(clip, layout).reshape(persons, joints, -1, clip.shape[1])
        self._held = self._held[:, known:]
        return np.ascontiguousarray(features[..., front : front + known])

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, for a file; `load` reads them."""
        offset = np.zeros(0) if self._offset is None else self._offset.reshape(-1)
        numbers = np.array([self._given, self.missing])
        return {"held": self._held, "offset": offset.astype(np.float32), "numbers": numbers}

    def load(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Raises UserError, starting with `where`, for arrays of another model."""
        held, offset, numbers = (arrays.get(name) for name in ("held", "offset", "numbers"))
        wanted = (3, *self._held.shape[2:])
        num_axis = self.input.pipeline.num_axis
        if (
            held is None
            or held.dtype != np.float32
            or held.ndim != 4
            or (held.shape[0], *held.shape[2:]) != wanted
            or not np.isfinite(held).all()
            or offset is None
            or offset.dtype != np.float32
            or offset.shape not in ((0,), (num_axis,))
            or numbers is None
            or numbers.shape != (2,)
            or numbers.dtype.kind != "i"
        ):
            raise UserError(f"{where}: not the state of a stream of this model")
        self._held = held
        self._offset = offset.reshape(-1, 1, 1, 1) if offset.size else None
        self._given, self.missing = (int(number) for number in numbers)


def whole_clips(input_: ClipInput) -> str:
    """Why the model's clips are prepared in a way that live frames cannot be; '' if they can."""
    if input_.pipeline.resample:
        return "its clips are resampled to a fixed number of frames (resample: true)"
    if input_.transform:
        return "its clips were normalised as a whole (transform: true)"
    return ""


def without_centring(input_: ClipInput) -> ClipInput:
    """The same input for whole clips that a `StreamInput` centres later."""
    return dataclasses.replace(input_, pipeline=dataclasses.replace(input_.pipeline, centre=False))
