"""Helpers that several readers share: listing and reading files, the motion energy of a body."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from errors import UserError
from reader.clip import BadRecording
from safe_io import UnreadableFile, read_bytes


def files_below(root: str, *, skip_unreadable: bool = False) -> Iterator[tuple[str, str]]:
    """(folder, name) of every file in a folder and its subfolders, sorted within each folder.

    Symbolic links to folders are followed; every folder is listed once, under the first path that
    leads to it, and a link to the root or to a folder above it is a loop and not followed. Raises
    UserError for a folder that cannot be listed, unless such folders are skipped.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    on_error = None if skip_unreadable else refuse
    top = os.path.realpath(root)
    visited = {top}
    for folder, subfolders, files in os.walk(root, onerror=on_error, followlinks=True):
        entered = []
        for name in sorted(subfolders):
            target = os.path.realpath(os.path.join(folder, name))
            is_above_root = top.startswith(target.rstrip(os.sep) + os.sep)
            if target not in visited and not is_above_root:
                visited.add(target)
                entered.append(name)
        subfolders[:] = entered  # os.walk enters those that are left
        for name in sorted(files):
            yield folder, name


def read_file(path: str, max_bytes: int) -> bytes:
    """The bytes of a file. Raises BadRecording if it cannot be read or exceeds `max_bytes`."""
    try:
        return read_bytes(path, max_bytes)
    except UnreadableFile as error:
        raise BadRecording(path, error.reason) from error


def energy(body: np.ndarray) -> float:
    """Motion energy of a body (T, V, C): the standard deviation over the joints of all frames in
    which the body exists, summed over x, y, z."""
    present = body[body.any(axis=(1, 2))]
    return sum(present[..., c].std() for c in range(3)) if len(present) else 0.0
