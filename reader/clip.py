"""What every reader makes of a recording, and what it calls a recording it cannot use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from errors import UserError


class BadRecording(UserError):
    """One recording that cannot be used. `reason` says why without saying which file."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)  # both kept in args: the error travels between processes
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}, {self.reason}"


@dataclass(frozen=True)
class Clip:
    """One recording's persons.

    positions: (C=3, T, V, M) float32, zeros where nobody is; metres, or x, y of the picture (-0.5
    to 0.5) and score. length: frames of the recording that are kept; T is that, or the whole of a
    clip on disk. is_cut: it had more. has_extra_body: it had more persons than were looked at or
    could be kept. empty_frames: kept frames without a person. misnumbered_frames: frames whose
    number is below 1, left out.
    """

    positions: np.ndarray
    length: int
    is_cut: bool
    has_extra_body: bool
    empty_frames: int
    misnumbered_frames: int = 0

    @property
    def has_person(self) -> bool:
        """False where all frames are empty."""
        return self.empty_frames < self.length

    def padded(self, num_frame: int) -> np.ndarray:
        """positions with zeros behind, as data on disk hold them: (C, T=num_frame, V, M)."""
        num_channel, length, num_joint, num_person = self.positions.shape
        whole = np.zeros((num_channel, num_frame, num_joint, num_person), np.float32)
        whole[:, :length] = self.positions
        return whole
