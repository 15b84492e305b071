"""Writes a data set to disk clip by clip: all of its files are published, or none.

`{train,eval}_data.npy`, `{train,eval}_label.pkl` and `manifest.json` are renamed into place after
all of them are complete, the manifest last; a killed run leaves only `.part` files, which the next
one removes. Memory use does not grow with the size of the set.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from dataset.storage import MANIFEST, PHASES
from errors import UserError
from safe_io import whole_file
from safe_pickle import dump_pickle

if sys.platform != "win32":
    import fcntl

# Published in reverse order: the manifest last.
FILES = (MANIFEST, *(f"{phase}_{kind}" for phase in PHASES for kind in ("data.npy", "label.pkl")))

logger = logging.getLogger(__name__)


@dataclass
class Split:
    """One split of the data set: names, labels and lengths of the clips written so far.

    clip_shape: (C, T, V, M).
    """

    data_file: IO[bytes]
    label_file: IO[bytes]
    clip_shape: tuple[int, ...]
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data_file.write(npy_header(0, self.clip_shape))

    def append(self, name: str, label: int, length: int, clip: np.ndarray) -> None:
        """Write one clip (C, T, V, M), float32. length: its frames before the padding."""
        if clip.shape != self.clip_shape or clip.dtype != np.float32:
            raise ValueError(f"{name}: {clip.dtype} {clip.shape}, not float32 {self.clip_shape}")
        self.data_file.write(np.ascontiguousarray(clip).data)
        self.names.append(name)
        self.labels.append(label)
        self.lengths.append(length)

    def finish(self) -> None:
        """Write what is known only after the last clip: their number, and the labels."""
        self.data_file.seek(0)
        self.data_file.write(npy_header(len(self.names), self.clip_shape))
        dump_pickle((self.names, self.labels, self.lengths), self.label_file)


@contextlib.contextmanager
def new_set(
    folder: Path, clip_shape: tuple[int, ...], num_clip: int, root_key: str
) -> Iterator[tuple[dict[str, Split], IO[str]]]:
    """Write a data set into a folder: one Split per phase, and the manifest's open text file. The
    files are published if the block succeeds.

    clip_shape: (C, T, V, M) of each clip. num_clip: their largest number. root_key: the setting
    that selects the disk, for messages. The caller must lock the folder (`only_writer`), and the
    block must `finish` each split. Raises UserError for a full disk.
    """
    _remove_stale(folder)
    num_byte = num_clip * 4 * int(np.prod(clip_shape))
    if shutil.disk_usage(folder).free < num_byte:
        raise _disk_full(folder, num_clip, num_byte, root_key)
    with contextlib.ExitStack() as stack:
        files: dict[str, IO[Any]] = {}
        for name in FILES:  # the stack closes, and so publishes, the first of them last
            mode = "w" if name == MANIFEST else "wb"
            files[name] = stack.enter_context(whole_file(folder / name, mode))
        try:
            splits = {
                phase: Split(files[f"{phase}_data.npy"], files[f"{phase}_label.pkl"], clip_shape)
                for phase in PHASES
            }
            yield splits, files[MANIFEST]
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(folder, num_clip, num_byte, root_key) from error
            raise
        # From here only a kill can prevent publishing, and it must not leave new files beside old.
        for name in FILES:
            (folder / name).unlink(missing_ok=True)


def _disk_full(folder: Path, num_clip: int, num_byte: int, root_key: str) -> UserError:
    free = shutil.disk_usage(folder).free / 1e6
    return UserError(
        f"{folder}: not enough disk space: {num_clip} clips need {num_byte / 1e6:,.1f} MB "
        f"in addition to existing data, {free:,.1f} MB are free; free some, or choose another "
        f"disk: --set {root_key}=PATH"
    )


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Create the folder and lock it against other runs; the lock ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror}") from error
    if sys.platform == "win32":  # no lock there
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UserError(f"{folder}: another run is generating data here; wait for it") from error
    except OSError:
        logger.warning("%s cannot be locked; do not start a second run there", folder)
    try:
        yield
    finally:
        os.close(lock)


def _remove_stale(folder: Path) -> None:
    """Remove the files of a killed run; the lock guarantees that no other run is writing."""
    for part in folder.glob(".*.part"):
        try:
            part.unlink()
        except OSError as error:
            raise UserError(f"{part}: cannot be removed: {error.strerror}") from error


def npy_header(num_clip: int, clip_shape: tuple[int, ...]) -> bytes:
    """The header that numpy.save writes before the clips; its length is the same for any number of
    them, because NumPy reserves space for the first axis to grow."""
    buffer = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (num_clip, *clip_shape)}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()
