"""Data types that the parts of the keypoint reader share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dataset.protocols import DataSpec

KEY = "dataset_args.keypoint."
UNITS_3D = ("metre", "millimetre")


@dataclass(frozen=True)
class Wanted:
    """The configuration of a user's own data.

    splits: 'train' and 'eval' to the names of these splits in the data, '' for none. first_label: 0
    or 1. unit: metre, millimetre, pixel or normalised (0 to 1). image_size: (width, height) of
    clips that have no size of their own. skip_bad: skip unusable clips. up: the vertical axis of
    the data, y or z. axes: the letter of each axis of the arrays, '' for MTVC or TVC. repair_order:
    track persons that change their place between frames.
    """

    spec: DataSpec
    splits: Mapping[str, str]
    first_label: int
    unit: str
    image_size: tuple[int, int] | None
    skip_bad: bool
    up: str = "y"
    axes: str = ""
    repair_order: bool = False

    @property
    def is_3d(self) -> bool:
        """Whether coordinates are in space, not in an image."""
        return self.unit in UNITS_3D


@dataclass(frozen=True)
class Entry:
    """One clip in the list of the data. label: as given, from 0 or from 1. fps: frames/s, 0 if
    unknown. location: the argument of `Folder.load` or `Pickle.load`."""

    name: str
    label: int
    splits: tuple[str, ...]
    fps: float
    location: Any


@dataclass(frozen=True)
class Raw:
    """One clip as stored. arrays: one with all persons, or one per person; masked where a table has
    empty cells. score: (M, T, V), image_size: (width, height), total_frames: stated beside the
    arrays; None if not stated. notes: what was skipped of tables."""

    arrays: Sequence[np.ndarray]
    score: np.ndarray | None = None
    image_size: tuple[float, float] | None = None
    total_frames: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What the data check needs of one clip, small enough to keep for all clips.

    num_value: values per person and frame. num_axis: C and num_joint: V, or 0 for a table (T, V*C)
    that does not fit the layout. fits: whether V is that of the layout. unusable: number of values
    that are NaN, infinite or too large for any unit. The fields after it are set only if the clip
    fits and has none of these. num_person: persons detected, else persons stored. body_frames:
    number of (person, frame) pairs with a person. missing: (V,) in how many of these the joint is
    missing. low, high: (C,) range of the detected joints. extent: longest side of the bounding box
    of a person in a typical frame. pose: (V, 2 or 3) float32, a person in the frame with the most
    detected joints, nearest the middle of the clip; NaN where a joint is missing. empty_frames:
    number of frames without a person. is_frozen: no joint moves in any of several frames. notes:
    those of Raw. shape: of the first array as stored. axes: other orders that its axes seem to have
    (`likely_axes`).
    """

    num_value: int
    num_person: int
    num_frame: int
    num_axis: int
    num_joint: int
    fits: bool
    sha: str
    total_frames: int | None
    image_size: tuple[float, float] | None
    unusable: int = 0
    body_frames: int = 0
    missing: np.ndarray = field(default_factory=lambda: np.empty(0))
    low: np.ndarray = field(default_factory=lambda: np.empty(0))
    high: np.ndarray = field(default_factory=lambda: np.empty(0))
    extent: float = 0.0
    pose: np.ndarray = field(default_factory=lambda: np.empty(0))
    empty_frames: int = 0
    is_frozen: bool = False
    notes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
