"""The 1-euro filter (Casiez, Roussel and Vogel, 2012): steady while a joint rests, quick while it
moves."""

from __future__ import annotations

import math

import numpy as np

MIN_CUTOFF = 1.0  # Hz, for a joint at rest
CUTOFF_GAIN = 1.0  # Hz for each m/s of its speed
SPEED_CUTOFF = 1.0  # Hz


class OneEuroFilter:
    """Of the joints of one person, whose first position is (3, V), in metres."""

    def __init__(self, joints: np.ndarray) -> None:
        self._joints, self._speed = joints, np.zeros_like(joints)

    def push(self, joints: np.ndarray, seconds: float) -> np.ndarray:
        """(3, V) `seconds` after the last ones -> where they are without the noise."""
        step = (joints - self._joints) / seconds
        self._speed = self._speed + _share(SPEED_CUTOFF, seconds) * (step - self._speed)
        cutoff = MIN_CUTOFF + CUTOFF_GAIN * np.linalg.norm(self._speed, axis=0)
        self._joints = self._joints + _share(cutoff, seconds) * (joints - self._joints)
        return self._joints


def _share(cutoff: float | np.ndarray, seconds: float) -> float | np.ndarray:
    """Weight of the newest value in a low-pass filter."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))
