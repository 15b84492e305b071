"""What the readers of several kinds of recordings share."""

from __future__ import annotations

import numpy as np

from reader.clip import BadRecording


def read_file(path: str, most: int) -> bytes:
    """The bytes of a file. Raises BadRecording where there is none to read, or more than `most`
    bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadRecording(path, f"cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise BadRecording(path, f"more than {most} bytes; a recording has at most that")
    return data


def energy(body: np.ndarray) -> float:
    """How widely a body (T, V, C) moves: sum over x, y, z of the deviation over all joints in the
    frames in which it exists."""
    there = body[body.any(axis=(1, 2))]
    return sum(there[..., c].std() for c in range(3)) if len(there) else 0.0
