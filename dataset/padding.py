"""Which joints and frames of a clip are occupied, and zero padding. NumPy only.

One clip is (C, T, V, M) float32. A joint that was not detected is zero in every channel; so are an
empty person slot and the zero padding after the last frame.
"""

from __future__ import annotations

import numpy as np


def joint_exists(clip: np.ndarray) -> np.ndarray:
    """Which joints are not zero: (C, T, V, M) -> (T, V, M) bool."""
    return np.any(clip, axis=0)


def valid_frames(clip: np.ndarray) -> tuple[int, int]:
    """The first occupied frame, and the one after the last: (start, stop); (0, 0) for an empty
    clip."""
    filled = np.flatnonzero(clip.any(axis=(0, 2, 3)))
    return (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)


def valid_length(clip: np.ndarray) -> int:
    """Number of frames up to the last occupied one; 0 for an empty clip."""
    return valid_frames(clip)[1]


def auto_padding(clip: np.ndarray, size: int, offset: int = 0) -> np.ndarray:
    """A clip of fewer than `size` frames padded with zeros, (C, T, V, M) -> (C, size, V, M), its
    first frame at `offset` (0 to size - T). Longer clips are returned unchanged (`auto_pading` in
    the public code of ST-GCN)."""
    c, t, v, m = clip.shape
    if t >= size:
        return clip
    padded = np.zeros((c, size, v, m), dtype=clip.dtype)
    padded[:, offset : offset + t] = clip
    return padded
