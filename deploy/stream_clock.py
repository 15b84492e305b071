"""Frames with timestamps -> frames at the rate of the training data. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from dataset.padding import joint_exists
from errors import UserError

MAX_GAP = 0.5  # seconds that are bridged; nobody is taken to be there in a longer gap
MAX_JUMP = 5.0  # seconds between two frames of one stream; milliseconds exceed it


class FrameClock:
    """Frames of one stream at times 0, 1 / rate, 2 / rate, ... after its first frame.

    Between two frames, joints are interpolated linearly; a joint that only one of them has is that
    of the nearer frame, as in `dataset.pipeline.resampled`. So a slower or faster camera and
    dropped frames keep the speed of motion. Of two frames at one time, the first counts.
    """

    def __init__(self, rate: float, joints: int, persons: int) -> None:
        """rate: frames/s. Raises UserError unless it is above 0."""
        if not 0 < rate < np.inf:
            raise UserError(f"frame_rate is {rate}; allowed: frames/s, above 0")
        self.rate = rate
        self._last: np.ndarray = np.zeros((3, 0, joints, persons), np.float32)  # one, or none yet
        self._times: np.ndarray = np.zeros(2)  # of the first and of the last frame, seconds
        self._made = 0

    def push(self, frames: np.ndarray, seconds: ArrayLike) -> np.ndarray:
        """(3, F, V, M) and their F times in seconds, never decreasing -> (3, F', V, M). Raises
        UserError for other times, before anything changes."""
        times = np.asarray(seconds, np.float64).reshape(-1)
        count = frames.shape[1]
        if len(times) != count or not np.isfinite(times).all():
            raise UserError(f"{len(times)} times for {count} frames; allowed: seconds of each")
        before: np.ndarray = self._times[1:] if self._made else times[:1]
        steps = np.diff(times, prepend=before)
        if steps.min() < 0:
            raise UserError("times that decrease; allowed: frames in the order of their times")
        if steps.max() > MAX_JUMP:
            raise UserError(
                f"times that jump by {steps.max():g} s; allowed: {MAX_JUMP:g} s; give seconds, and "
                "begin a new stream after a longer pause"
            )
        return np.concatenate(
            [self._until(frames[:, n : n + 1], times[n]) for n in range(count)], 1
        )

    def _until(self, frame: np.ndarray, time: float) -> np.ndarray:
        """The frames up to and including `time`, at which `frame` (3, 1, V, M) came."""
        if not self._made:
            self._last, self._times, self._made = frame, np.array([time, time]), 1
            return frame
        start, previous = self._times
        end = int(np.floor((time - start) * self.rate + 1e-6)) + 1
        due = np.arange(self._made, end)
        if time == previous:
            return frame[:, :0]
        shares = np.clip((start + due / self.rate - previous) / (time - previous), 0, 1)
        weight = shares.astype(np.float32)[:, None, None]  # (F', 1, 1)
        both = joint_exists(self._last) & joint_exists(frame)  # (1, V, M)
        weight = np.where(both, weight, weight >= 0.5)  # (F', V, M)
        made = self._last * (1 - weight) + frame * weight
        if time - previous > MAX_GAP:
            made[:, start + due / self.rate < time - 0.5 / self.rate] = 0
        self._last, self._times[1], self._made = frame, time, max(end, self._made)
        return made.astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, for a file; `load` reads them."""
        numbers = {"times": self._times, "made": np.array(self._made), "rate": np.array(self.rate)}
        return {"last": self._last, **numbers}

    def load(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Raises UserError, starting with `where`, for anything but the arrays of a clock of the
        same rate and frames."""
        own = self.arrays()
        for name, array in own.items():
            given, axes = arrays.get(name), slice(2, None) if name == "last" else slice(None)
            if (
                given is None
                or given.dtype != array.dtype
                or given.ndim != array.ndim
                or given.shape[axes] != array.shape[axes]
                or not np.isfinite(given).all()
            ):
                raise UserError(f"{where}: clock.{name} is missing or of another model")
        if arrays["rate"] != own["rate"]:
            raise UserError(
                f"{where}: of {arrays['rate']:g} frames/s; the predictor has {self.rate:g}"
            )
        made, count = int(arrays["made"]), arrays["last"].shape[:2]
        if count != (3, 1) if made else count != (3, 0):
            raise UserError(f"{where}: clock.last does not fit clock.made")
        self._last, self._times, self._made = arrays["last"], arrays["times"].copy(), made
