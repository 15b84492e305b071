"""The result of reading one recording: a Clip, or a BadRecording."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataset.padding import auto_padding
from errors import UserError


class BadRecording(UserError):
    """A recording that cannot be used. `reason` is the message without the file."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)  # both in args, because the error is pickled
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}, {self.reason}"


class Unusable(Exception):
    """The reason why a recording cannot be used, raised where its location is not known."""


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns an Unusable into the BadRecording that names `where`."""
    try:
        yield
    except Unusable as error:
        raise BadRecording(where, str(error)) from error


@dataclass(frozen=True)
class Clip:
    """The persons of one recording.

    positions: (C=3, T, V, M) float32, zeros in empty slots; metres, or x, y in the image (-0.5 to
    0.5) and score. length: frames kept of the recording; T is the same, or that of a clip on disk.
    is_truncated: it had more frames. has_extra_body: it had more persons than were examined or
    kept. empty_frames: kept frames without a person. misnumbered_frames: frames with a number below
    the first one, dropped. counts_from_zero: whether its file counts frames from 0 where the format
    counts from 1. swaps: frames in which a person has another place in the list of persons than
    when it was last seen (`reader.tracking`), whether they were repaired or not.
    """

    positions: np.ndarray
    length: int
    is_truncated: bool
    has_extra_body: bool
    empty_frames: int
    misnumbered_frames: int = 0
    counts_from_zero: bool = False
    swaps: int = 0

    @property
    def has_person(self) -> bool:
        """False if all frames are empty."""
        return self.empty_frames < self.length

    def padded(self, num_frame: int) -> np.ndarray:
        """Zero-padded positions, as stored on disk: (C, T=num_frame, V, M)."""
        return auto_padding(self.positions, num_frame)
