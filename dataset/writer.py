"""A data set on disk, written clip by clip: all of its files whole, or none of them.

`{train,eval}_data.npy`, `{train,eval}_label.pkl` and `manifest.json` get their names when all of
them are whole, the manifest last; a killed run leaves only `.part` files, which the next one
removes. Memory does not grow with the set.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from dataset.storage import MANIFEST, PHASES
from errors import UserError
from safe_io import dump_pickle, whole_file

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs apart there
    fcntl = None

# The manifest comes first here and last on the disk.
FILES = (MANIFEST, *(f"{phase}_{kind}" for phase in PHASES for kind in ("data.npy", "label.pkl")))

logger = logging.getLogger(__name__)


class Split:
    """One half of the data set: names, labels and lengths of the clips written so far.

    clip_shape: (C, T, V, M).
    """

    def __init__(
        self, data_file: IO[bytes], label_file: IO[bytes], clip_shape: tuple[int, ...]
    ) -> None:
        self._data_file = data_file
        self._label_file = label_file
        self._clip_shape = clip_shape
        self.names: list[str] = []
        self.labels: list[int] = []
        self.lengths: list[int] = []
        self._data_file.write(npy_header(0, clip_shape))

    def append(self, name: str, label: int, length: int, clip: np.ndarray) -> None:
        """Write one clip (C, T, V, M), float32. length: its frames that are no padding."""
        if clip.shape != self._clip_shape or clip.dtype != np.float32:
            raise ValueError(f"{name}: {clip.dtype} {clip.shape}, not float32 {self._clip_shape}")
        self._data_file.write(np.ascontiguousarray(clip).data)
        self.names.append(name)
        self.labels.append(label)
        self.lengths.append(length)

    def finish(self) -> None:
        """Write what is known only now: the number of clips, and the labels."""
        self._data_file.seek(0)
        self._data_file.write(npy_header(len(self.names), self._clip_shape))
        dump_pickle((self.names, self.labels, self.lengths), self._label_file)


@dataclass(frozen=True)
class NewSet:
    """A set that is being written: a Split a phase, and the manifest's open text file."""

    splits: dict[str, Split]
    manifest: IO[str]


@contextlib.contextmanager
def new_set(
    folder: Path, clip_shape: tuple[int, ...], num_clip: int, root_key: str
) -> Iterator[NewSet]:
    """Write a data set into a folder; the files take their places when the block has ended well.

    clip_shape: (C, T, V, M) of each clip. num_clip: so many at most. root_key: the setting that
    chooses the disk, for messages. The block must hold the folder (`only_writer`) and `finish`
    each split. Raises UserError for a full disk.
    """
    room = _Room(folder, num_clip * 4 * int(np.prod(clip_shape)), num_clip, root_key)
    _remove_stale(folder)
    room.check()
    with contextlib.ExitStack() as stack:
        files: dict[str, IO[Any]] = {}
        for name in FILES:  # the stack closes, and so renames, the first of them last
            file = whole_file(folder / name, "w" if name == MANIFEST else "wb")
            files[name] = stack.enter_context(file)
        with room.named_when_full():
            yield NewSet(
                {
                    phase: Split(
                        files[f"{phase}_data.npy"], files[f"{phase}_label.pkl"], clip_shape
                    )
                    for phase in PHASES
                },
                files[MANIFEST],
            )
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        # Now only a kill can stop the renaming, and it must not leave new files beside old ones.
        for name in FILES:
            (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it; the lock goes with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}") from error
    if fcntl is None:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UserError(f"{folder}: another run is generating data here; wait for it") from error
    except OSError:
        logger.warning("%s cannot be locked; start no second run there", folder)
    try:
        yield
    finally:
        os.close(lock)


def _remove_stale(folder: Path) -> None:
    """What a killed run has left beside its places; nobody else writes here now."""
    for part in folder.glob(".*.part"):
        try:
            part.unlink()
        except OSError as error:
            raise UserError(f"{part}: cannot be removed: {error.strerror}") from error


@dataclass(frozen=True)
class _Room:
    """What a set needs on its disk."""

    folder: Path
    num_byte: int
    num_clip: int
    root_key: str

    def check(self) -> None:
        if shutil.disk_usage(self.folder).free < self.num_byte:
            raise self._full()

    @contextlib.contextmanager
    def named_when_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._full() from error

    def _full(self) -> UserError:
        needed, free = self.num_byte / 1e6, shutil.disk_usage(self.folder).free / 1e6
        return UserError(
            f"{self.folder}: the disk is too full: {self.num_clip} clips need {needed:,.1f} MB "
            f"besides any older data there, {free:,.1f} MB are free; make room, or choose another "
            f"disk: --set {self.root_key}=PATH"
        )


def npy_header(num_clip: int, clip_shape: tuple[int, ...]) -> bytes:
    """What numpy.save writes before the clips; its length is the same for any number of them,
    because NumPy leaves room for the first axis to grow."""
    buffer = io.BytesIO()
    shape = (num_clip, *clip_shape)
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()
