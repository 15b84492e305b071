"""What every clip goes through on its way to a network, in training, evaluation and static
inference alike: a fixed number of frames, and a place for the origin. NumPy only.

One clip is (C, T, V, M) float32. A joint that was not seen is zero in every channel; so are a
person who is absent and the padding behind a clip's end. Everything here keeps these zeros zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset.skeletons import Skeleton


def joint_exists(clip: np.ndarray) -> np.ndarray:
    """Which joints hold anything: (C, T, V, M) -> (T, V, M) bool."""
    return clip.any(axis=0)


def valid_frames(clip: np.ndarray) -> tuple[int, int]:
    """The first frame that holds anything, and the one behind the last: (start, stop). An empty
    clip gives (0, 0)."""
    filled = np.flatnonzero(clip.any(axis=(0, 2, 3)))
    return (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)


def valid_length(clip: np.ndarray) -> int:
    """Frames up to the last one that holds anything; 0 for an empty clip."""
    return valid_frames(clip)[1]


def auto_padding(clip: np.ndarray, size: int, offset: int = 0) -> np.ndarray:
    """Zeros around a clip of fewer than `size` frames: (C, T, V, M) -> (C, size, V, M), with its
    first frame at `offset` (0 to size - T). A longer clip comes back as it is (ST-GCN's public
    code, `auto_pading`)."""
    c, t, v, m = clip.shape
    if t >= size:
        return clip
    padded = np.zeros((c, size, v, m), dtype=clip.dtype)
    padded[:, offset : offset + t] = clip
    return padded


def resample(clip: np.ndarray, num_frame: int) -> np.ndarray:
    """The valid frames spread evenly over num_frame: (C, T, V, M) -> (C, num_frame, V, M).

    The first and the last valid frame stay the first and the last; between two frames a joint
    lies on the straight line. Where a joint exists in only one of the two, the nearer frame (the
    later of two equally near) is copied: a joint is either real or zero, never on its way to 0.
    An empty clip gives zeros.
    """
    length = valid_length(clip)
    if length == 0:
        return auto_padding(clip[:, :0], num_frame)
    if length == num_frame:
        return clip[:, :length]
    # Frame i lies at i * (length - 1) / (num_frame - 1): in whole numbers, so hits are exact.
    step = max(num_frame - 1, 1)
    before, rest = np.divmod(np.arange(num_frame) * (length - 1), step)
    after = np.minimum(before + 1, length - 1)
    early, late = clip[:, before], clip[:, after]  # (C, num_frame, V, M)
    share = (rest / step).astype(np.float32)[:, None, None]
    lone = joint_exists(early) ^ joint_exists(late)
    share = np.where(lone, share >= 0.5, share)  # (num_frame, V, M)
    return early * (1 - share) + late * share


def centre(clip: np.ndarray, origin: int, num_axis: int = 3) -> np.ndarray:
    """The clip with its first origin joint at zero, (C, T, V, M).

    That joint is the one of the first frame in which anybody's is there, and of the first such
    person. It is subtracted from every joint that exists, in all frames and persons, so movement
    through space stays; what does not exist stays zero. num_axis: channels that are coordinates;
    those behind them (a score) stay as they are. A clip without any origin joint is not moved.
    """
    there = np.argwhere(clip[:num_axis, :, origin].any(axis=0))  # rows of (frame, person), sorted
    if len(there) == 0:
        return clip
    frame, person = there[0]
    moved = clip.copy()
    moved[:num_axis] -= clip[:num_axis, frame, origin, person].reshape(-1, 1, 1, 1)
    moved[:, ~joint_exists(clip)] = 0
    return moved


@dataclass(frozen=True)
class Preprocess:
    """num_frame: frames of the result. resample: spread the valid frames over them; else the
    first num_frame are taken, and zeros follow a shorter clip. centre: see `centre`. num_axis:
    coordinates among the channels, 2 for (x, y, score)."""

    num_frame: int
    resample: bool = False
    centre: bool = False
    num_axis: int = 3

    def apply(self, clip: np.ndarray, skeleton: Skeleton) -> np.ndarray:
        """(C, T, V, M) of any T -> (C, num_frame, V, M). The argument stays as it is; the result
        may be a view of it."""
        if self.resample:
            clip = resample(clip, self.num_frame)
        else:
            clip = auto_padding(clip[:, : self.num_frame], self.num_frame)
        return centre(clip, skeleton.origin, self.num_axis) if self.centre else clip
