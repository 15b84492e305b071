"""Raw joints -> the network's input branches. NumPy only; the single implementation for training,
evaluation and static inference. Definitions: EfficientGCN (TPAMI 2022, section 3.1).

One clip is (C=3, T, V, M) in metres, float32 as on disk. The computation uses an array whose last
axis is T, so that differences over time access contiguous memory and the result already is the 4-D
clip tensor of the networks, (M*V, I*C, T), M slow and I slow. Differences are computed in float32
and bone angles in float64, as in the public code, which gives bit-identical features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dataset.skeletons import Skeleton
from errors import UserError

BONE_EPSILON = 1e-4  # added to a bone's length before its angles; a zero bone gives pi/2


class Branch(NamedTuple):
    """An input branch. channels: number of its features. look_ahead: later frames that the features
    of a frame depend on. compute(x, skeleton, out): writes the features of x (M, V, C, T) to out
    (M, V, channels, T)."""

    channels: int
    look_ahead: int
    compute: Callable[[np.ndarray, Skeleton, np.ndarray], None]


def _joint(x: np.ndarray, skeleton: Skeleton, out: np.ndarray) -> None:
    """Coordinates, and coordinates relative to the origin joint of the same frame."""
    out[:, :, :3] = x
    np.subtract(x, x[:, skeleton.origin, None], out=out[:, :, 3:])


def _velocity(x: np.ndarray, skeleton: Skeleton, out: np.ndarray) -> None:
    """Displacement to the next frame and to the one after; both zero at the last two frames."""
    out[..., -2:] = 0
    np.subtract(x[..., 1:-1], x[..., :-2], out=out[:, :, :3, :-2])
    np.subtract(x[..., 2:], x[..., :-2], out=out[:, :, 3:, :-2])


def _bone(x: np.ndarray, skeleton: Skeleton, out: np.ndarray) -> None:
    """Vector from the parent joint, and its angles to the axes in radians."""
    out[:, :, :3] = x - x[:, list(skeleton.parents)]
    bone = out[:, :, :3].astype(np.float64)
    length = np.sqrt((bone * bone).sum(axis=2, keepdims=True))
    length += BONE_EPSILON
    bone /= length
    np.arccos(bone, out=bone)
    out[:, :, 3:] = bone


def _raw(x: np.ndarray, skeleton: Skeleton, out: np.ndarray) -> None:
    """Coordinates as recorded."""
    out[:] = x


def _raw_bone(x: np.ndarray, skeleton: Skeleton, out: np.ndarray) -> None:
    """Vector from the parent joint."""
    np.subtract(x, x[:, list(skeleton.parents)], out=out)


def _motion(x: np.ndarray, skeleton: Skeleton, out: np.ndarray) -> None:
    """Displacement of the joints to the next frame; zero at the last."""
    out[..., -1] = 0
    np.subtract(x[..., 1:], x[..., :-1], out=out[..., :-1])


def _bone_motion(x: np.ndarray, skeleton: Skeleton, out: np.ndarray) -> None:
    """Change of the bone vectors to the next frame; zero at the last."""
    _motion(x - x[:, list(skeleton.parents)], skeleton, out)


BRANCHES: dict[str, Branch] = {
    "J": Branch(6, 0, _joint),
    "V": Branch(6, 2, _velocity),
    "B": Branch(6, 0, _bone),
    # Four modalities for separate networks whose scores are summed: 2s-AGCN (CVPR 2019), MS-AAGCN
    # (2020).
    "X": Branch(3, 0, _raw),
    "Y": Branch(3, 0, _raw_bone),
    "M": Branch(3, 1, _motion),
    "N": Branch(3, 1, _bone_motion),
}
ORDER = "JVBXYMN"  # branches are stacked in this order, regardless of the order of the letters
NEED_PARENTS = frozenset("BYN")


def branch_channels(inputs: str) -> list[int]:
    """Channels of each branch of `inputs`, in stacking order: 'VJ' -> [6, 6]."""
    unknown = sorted(set(inputs) - set(ORDER))
    if unknown or not inputs:
        raise UserError(f"inputs is {inputs!r}; allowed: letters of {ORDER}, each once")
    return [BRANCHES[letter].channels for letter in ORDER if letter in inputs]


def clip_tensor(
    clip: np.ndarray, skeleton: Skeleton, inputs: str, num_frame: int | None = None
) -> np.ndarray:
    """One clip as input of the networks.

    clip: (3, T, V, M), metres, any real dtype. num_frame: use only the first frames.
    Returns (M*V, I*C, T) float32, C-contiguous. Raises UserError if the clip or its layout lacks
    what a branch needs (3 coordinates, V joints, 3 frames, bone parents).
    """
    channels = branch_channels(inputs)
    x = np.asarray(clip)[:, :num_frame]
    c, t, v, m = x.shape
    if (c, v) != (3, skeleton.num_joint):
        raise UserError(
            f"clip has shape {clip.shape}; allowed: (3, T, {skeleton.num_joint}, M) for the "
            f"layout {skeleton.name}"
        )
    if t < 3 and "V" in inputs:
        raise UserError(f"clip has {t} frames; the velocity branch needs 3 or more")
    if not skeleton.parents and NEED_PARENTS & set(inputs):
        raise UserError(f"layout {skeleton.name} has no bone parents; inputs {inputs} needs them")
    x = np.ascontiguousarray(x.transpose(3, 2, 0, 1), dtype=np.float32)  # (M, V, C, T)
    out = np.empty((m, v, sum(channels), t), dtype=np.float32)
    start = 0
    for letter in ORDER:
        if letter in inputs:
            branch = BRANCHES[letter]
            branch.compute(x, skeleton, out[:, :, start : start + branch.channels])
            start += branch.channels
    return out.reshape(m * v, sum(channels), t)


def person_exists(clips: np.ndarray) -> np.ndarray:
    """Which person slots are occupied: (N, C, T, V, M) -> (N, M) bool, True if any coordinate of
    any frame is not zero."""
    n, _, _, _, m = clips.shape
    return np.array([[clips[i, ..., j].any() for j in range(m)] for i in range(n)]).reshape(n, m)
