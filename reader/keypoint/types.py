"""What the parts of the keypoint reader hand to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dataset.protocols import DataSpec

KEY = "dataset_args.keypoint."
UNITS_3D = ("metre", "millimetre")


@dataclass(frozen=True)
class Wanted:
    """What the configuration says of a user's own data.

    splits: 'train' and 'eval' to the names that the data give them, '' for none. first_label: 0
    or 1. unit: metre, millimetre, pixel or normalised (0 to 1). image_size: (width, height) for
    clips that do not say theirs. skip_bad: leave unusable clips out.
    """

    spec: DataSpec
    splits: Mapping[str, str]
    first_label: int
    unit: str
    image_size: tuple[int, int] | None
    skip_bad: bool

    @property
    def is_3d(self) -> bool:
        """Whether the unit is one of space, not of pictures."""
        return self.unit in UNITS_3D


@dataclass(frozen=True)
class Entry:
    """One clip that the data list. label: as given, from 0 or from 1. fps: frames a second, 0
    where nothing is said. place: what `KeypointFiles.load` finds it by."""

    name: str
    label: int
    splits: tuple[str, ...]
    fps: float
    place: Any


@dataclass(frozen=True)
class Raw:
    """One clip as it is stored. arrays: one with all persons, or one a person. score: (M, T, V),
    image_size: (width, height), num_frame: what is said beside; None where nothing is."""

    arrays: Sequence[np.ndarray]
    score: np.ndarray | None = None
    image_size: tuple[float, float] | None = None
    num_frame: int | None = None


class KeypointFiles(Protocol):
    """Where clips lie. entries: all that are listed, in their order. notes: what looked odd on
    the way. in_memory: all of them are loaded already."""

    entries: Sequence[Entry]
    notes: Sequence[str]
    in_memory: bool

    def load(self, place: Any) -> Raw:
        """One clip's arrays. Raises BadRecording where they cannot be read."""


@dataclass(frozen=True)
class Facts:
    """What the data check needs to know of one clip, small enough to keep for all of them.

    num_value: numbers of a person in a frame. num_axis: C, and num_joint: V, as far as they are
    known; a table (T, V*C) that does not fit the layout leaves both 0. fits: the joints are those
    of the layout. The rest counts only where they are and unusable (how many numbers are NaN,
    infinite or too large for any unit) is 0. num_person: those who are seen. missing: (V,) frames
    in which a person is there, but not the joint, of `body_frames` in all. low, high: (C,) of
    joints that are there; None where none is. extent: the longest side of the box around a
    person, in a typical frame.
    """

    num_value: int
    num_person: int
    num_frame: int
    num_axis: int
    num_joint: int
    fits: bool
    sha: str
    said_frames: int | None
    image_size: tuple[float, float] | None
    unusable: int = 0
    body_frames: int = 0
    missing: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    extent: float = 0.0
