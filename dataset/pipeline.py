"""Clip on disk -> input of a network: one pipeline for training, evaluation and static inference.
NumPy only.

The steps for a clip (C, T, V, M): augmentation (training only, dataset/augment.py), sampling a
fixed number of frames, centring, and the features of the input branches (dataset/features.py).
Sampling and centring leave a joint that was not detected at zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.data import AugmentArgs, ClipArgs
from dataset.augment import augment
from dataset.features import BRANCHES, branch_channels, clip_tensor
from dataset.padding import auto_padding, joint_exists, valid_length
from dataset.skeletons import Skeleton
from errors import UserError

LARGEST = 1e9  # coordinate, in any unit; leaves float32 room for what a network multiplies


def unusable(clip: np.ndarray) -> str:
    """Why no network can use a raw clip: it holds NaN, infinity or a number too large for a
    coordinate. '' if it is usable."""
    low, high = float(clip.min()), float(clip.max())
    if not np.isfinite([low, high]).all():
        return "NaN or infinity"
    largest = max(-low, high)
    return "" if largest <= LARGEST else f"{largest:.3g}; allowed: coordinates up to {LARGEST:g}"


@dataclass(frozen=True)
class ClipPipeline:
    """inputs: letters of the input branches. num_frame: frames of the network's input. resample:
    interpolate the valid frames to num_frame; otherwise the first num_frame are taken and shorter
    clips are padded with zeros. centre: see `centred`. num_axis: coordinates among the channels, 2
    for (x, y, score). augment: augmentation, for training."""

    inputs: str
    num_frame: int
    resample: bool = False
    centre: bool = False
    num_axis: int = 3
    augment: AugmentArgs | None = None

    @classmethod
    def from_config(cls, args: ClipArgs, *, training: bool) -> ClipPipeline:
        """The pipeline of a configuration's data. training: with its augmentation."""
        num_frame = args.num_frame
        if training and not args.resample:
            # The random window is the network's input; it is not padded to num_frame.
            num_frame = args.augment.random_choose or num_frame
        augment = args.augment if training else None
        return cls(args.inputs, num_frame, args.resample, args.centre, args.num_axis, augment)

    @classmethod
    def from_mapping(cls, tree: Any, where: str) -> ClipPipeline:
        """The pipeline from the result of `to_mapping`. where: its origin, for errors. Raises
        UserError for anything else."""
        kinds = {"inputs": str, "num_frame": int, "resample": bool, "centre": bool, "num_axis": int}
        if not isinstance(tree, Mapping) or tree.keys() != kinds.keys():
            raise UserError(f"{where}: allowed: the keys {', '.join(kinds)}; export again")
        odd = [key for key, kind in kinds.items() if type(tree[key]) is not kind]
        if odd or tree["num_frame"] < 1 or tree["num_axis"] not in (2, 3):
            raise UserError(f"{where}: {', '.join(odd) or 'num_frame or num_axis'} not allowed")
        branch_channels(tree["inputs"])
        return cls(**tree)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, without the augmentation, for the metadata of a static model."""
        tree = dataclasses.asdict(self)
        del tree["augment"]
        return tree

    @property
    def channels(self) -> list[int]:
        """Channels of each input branch, in stacking order."""
        return branch_channels(self.inputs)

    @property
    def look_ahead(self) -> int:
        """Number of later frames that the features of a frame depend on."""
        return max(BRANCHES[letter].look_ahead for letter in self.inputs)

    @property
    def min_frames(self) -> int:
        """Smallest number of frames a clip may have."""
        return 1 if self.resample else self.num_frame

    def prepare(
        self, clip: np.ndarray, skeleton: Skeleton, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """(C, T, V, M) of any T -> (C, num_frame, V, M) coordinates. rng: for the augmentation. The
        argument is not modified; the result may be a view of it."""
        if self.augment is not None:
            assert rng is not None  # training passes one
            clip = augment(clip, self.augment, self.num_axis, rng)
        if self.resample:
            clip = resampled(clip, self.num_frame)
        else:
            clip = auto_padding(clip[:, : self.num_frame], self.num_frame)
        return centred(clip, skeleton.origin, self.num_axis) if self.centre else clip

    def features(self, clip: np.ndarray, skeleton: Skeleton) -> np.ndarray:
        """Prepared clip (C, T, V, M) -> clip tensor (M*V, I*C, T) float32."""
        return clip_tensor(clip, skeleton, self.inputs)


def resampled(clip: np.ndarray, num_frame: int) -> np.ndarray:
    """The valid frames interpolated linearly to num_frame: (C, T, V, M) -> (C, num_frame, V, M).

    The first and the last valid frame are kept as the first and the last. If a joint exists in only
    one of two neighbouring frames, the nearer frame is copied (the later one on a tie): a joint is
    either real or zero, never in between. An empty clip gives zeros.
    """
    length = valid_length(clip)
    if length == 0:
        return auto_padding(clip[:, :0], num_frame)
    if length == num_frame:
        return clip[:, :length]
    # Frame i is at i * (length - 1) / (num_frame - 1): integer arithmetic keeps exact hits exact.
    step = max(num_frame - 1, 1)
    before, rest = np.divmod(np.arange(num_frame) * (length - 1), step)
    after = np.minimum(before + 1, length - 1)
    early, late = clip[:, before], clip[:, after]  # (C, num_frame, V, M)
    weight = (rest / step).astype(np.float32)[:, None, None]
    one_missing = joint_exists(early) ^ joint_exists(late)
    weight = np.where(one_missing, weight >= 0.5, weight)  # (num_frame, V, M)
    return early * (1 - weight) + late * weight


def centred(clip: np.ndarray, origin: int, num_axis: int = 3) -> np.ndarray:
    """The clip translated so that its first origin joint is at zero, (C, T, V, M).

    That joint is taken from the first frame in which any person has it, and from the first such
    person. It is subtracted from every joint that exists, in all frames and persons, so motion
    through space is kept; joints that do not exist stay zero. num_axis: channels that are
    coordinates; the others (a score) are unchanged. A clip without any origin joint is unchanged.
    """
    found = np.argwhere(clip[:num_axis, :, origin].any(axis=0))  # rows of (frame, person), sorted
    if len(found) == 0:
        return clip
    frame, person = found[0]
    moved = clip.copy()
    moved[:num_axis] -= clip[:num_axis, frame, origin, person].reshape(-1, 1, 1, 1)
    moved[:, ~joint_exists(clip)] = 0
    return moved
