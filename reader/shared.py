"""Helpers that several readers share: reading a file, the motion energy of a body."""

from __future__ import annotations

import numpy as np

from reader.clip import BadRecording


def read_file(path: str, max_bytes: int) -> bytes:
    """The bytes of a file. Raises BadRecording if it cannot be read or exceeds `max_bytes`."""
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise BadRecording(path, f"cannot be read: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise BadRecording(path, f"more than {max_bytes} bytes, the limit for a recording")
    return data


def energy(body: np.ndarray) -> float:
    """Motion energy of a body (T, V, C): the standard deviation over the joints of all frames in
    which the body exists, summed over x, y, z."""
    present = body[body.any(axis=(1, 2))]
    return sum(present[..., c].std() for c in range(3)) if len(present) else 0.0
