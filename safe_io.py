"""Atomic file writes, and readers that never run code from a file; pickles: `safe_pickle`. Imports
only `errors` from this project, and nothing heavy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import stat
import sys
import tempfile
import threading
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import yaml

from errors import UserError

PathLike = str | os.PathLike[str]
MAX_NPZ_BYTES = 2**30  # unpacked; the scores of 260,000 clips for 1000 classes are as large
TEXT_BYTES = 2**28  # of a text file; the label file of Kinetics-700, the largest known, has 2**26
MODEL_BYTES = 2**31  # of a program or its weights: the limit of protocol buffers
# O_NONBLOCK: opening a pipe does not wait for a writer.
_READ = os.O_RDONLY | sum(getattr(os, f"O_{n}", 0) for n in ("NONBLOCK", "BINARY", "CLOEXEC"))
MAX_YAML_LETTERS = 2 * 2**20  # the parser takes a second or more for a million
MAX_YAML_VALUES = 100_000  # of one file; an aliased value counts once per reference


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is removed at the end of the block, also where SIGTERM ends the process."""
    previous = signal.getsignal(signal.SIGTERM)
    # Python runs handlers in its main thread; somebody else's handler has its own purpose.
    ours = threading.current_thread() is threading.main_thread() and not callable(previous)
    if ours:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def whole_file(path: PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """Atomic write: open a file that appears under `path` only if the block succeeds.

    The content goes to `.<name>.<unique>.part` in the same folder, is flushed to disk, then
    renamed; after an error or a kill, `path` is unchanged. Of concurrent writers, the last to
    finish wins.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        # A failed write has no file name; an error with another file's name came from the block.
        own = (None, str(part), *map(str, path.parents))
        if isinstance(error, OSError) and error.filename in own:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def check_writable(path: PathLike, *sources: PathLike) -> None:
    """Raises UserError where `whole_file` could not write, or would write over one of the files
    that the result is made from: to be known before long work."""
    for source in sources:
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise UserError(f"{path}: cannot be written: it is also read; give another name")
    folder = Path(path).absolute().parent
    while not os.path.exists(folder):
        folder = folder.parent
    if os.path.isdir(path):
        raise UserError(f"{path}: cannot be written: it is a folder")
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot be written: {folder} is not a folder that can be")


def user_cache(name: str) -> Path | None:
    """A folder of this project in the user's cache, made where it is missing. None without one that
    only this user can write: what lies there is trusted."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "skeleton-action" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = os.lstat(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None
    is_own = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
    is_shared = stat.S_ISLNK(facts.st_mode) or bool(facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return folder if is_own and not is_shared and os.access(folder, os.W_OK) else None


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML without object tags. Raises UserError for anything else, and for references that
    are circular or expand to more than MAX_YAML_VALUES values."""
    if len(text) > MAX_YAML_LETTERS:
        raise UserError(f"{where}: {len(text):,} letters; allowed in YAML: {MAX_YAML_LETTERS:,}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: not readable as YAML: {reason}") from error
    except (AttributeError, LookupError, TypeError) as error:  # e.g. '!!timestamp x'
        raise UserError(f"{where}: not readable as YAML: a value does not fit its tag") from error
    rest, count = [value], 0
    while rest:
        inner = rest.pop()
        count += 1
        if count > MAX_YAML_VALUES:
            raise UserError(f"{where}: more than {MAX_YAML_VALUES} values, or a circular reference")
        if isinstance(inner, dict):
            rest += [*inner, *inner.values()]
        elif isinstance(inner, (list, tuple, set)):
            rest += inner
    return value


def read_yaml_file(path: PathLike) -> Any:
    """`read_yaml` of a file. Also raises UserError if it is missing or not UTF-8 text."""
    return read_yaml(read_text(path), str(path))


def read_text(path: PathLike) -> str:
    """The content of a UTF-8 text file, without a byte-order mark, which editors on Windows write.
    Raises UserError if it cannot be read."""
    try:
        return read_bytes(path, TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFile(path, "not UTF-8 text") from error


class UnreadableFile(UserError):
    """A file that cannot be read. reason: why, without its path."""

    def __init__(self, path: PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def open_file(path: PathLike, limit: int | None = None) -> IO[bytes]:
    """Open a file for reading. Every file that a user names is opened here, or checked here first.

    limit: its largest size in bytes; None where it is not read into memory. Raises UnreadableFile
    for a larger one, a missing one, a folder, and a pipe or device, whose data may never end.
    """
    try:
        number = os.open(path, _READ)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UnreadableFile(path, f"cannot be read: {reason}") from error
    facts = os.fstat(number)
    reason = ""
    if stat.S_ISDIR(facts.st_mode):
        reason = "a folder; allowed: a file"
    elif not stat.S_ISREG(facts.st_mode):
        reason = "a pipe or a device; allowed: a file"
    elif limit is not None and facts.st_size > limit:
        reason = f"{facts.st_size:,} bytes; allowed for a file of this kind: {limit:,}"
    if reason:
        os.close(number)
        raise UnreadableFile(path, reason)
    return os.fdopen(number, "rb")


def check_file(path: PathLike, limit: int | None = None) -> None:
    """Raises what `open_file` raises: for libraries that open paths themselves."""
    open_file(path, limit).close()


def read_bytes(path: PathLike, limit: int) -> bytes:
    """The content of a file of up to `limit` bytes. Raises UnreadableFile as `open_file`."""
    with open_file(path, limit) as file:
        try:
            return file.read()
        except OSError as error:
            raise UnreadableFile(path, f"cannot be read: {error.strerror or error}") from error


def read_json(path: PathLike) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte-order mark. Raises UserError."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error


def file_hash(path: PathLike) -> str:
    """SHA-256 of a file of up to MODEL_BYTES, in hex. Raises UnreadableFile as `open_file`."""
    digest = hashlib.sha256()
    with open_file(path, MODEL_BYTES) as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


# What NumPy raises for damaged .npy and .npz files, files of other kinds, and pickled objects.
NO_ARRAY = (
    *(ValueError, TypeError, AttributeError, KeyError, EOFError, MemoryError, RuntimeError),
    *(SyntaxError, OverflowError, zipfile.BadZipFile, zlib.error, TokenError, OSError),
)


def open_npy(path: PathLike) -> np.ndarray:
    """The memory map of one array. Raises UserError for a missing or damaged file, an archive, and
    a pipe."""
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file")
    check_file(path)
    try:
        with np.errstate(over="ignore"):  # a damaged header may give an enormous size
            data = np.load(path, mmap_mode="r", allow_pickle=False)
    except NO_ARRAY as error:
        raise UserError(f"{path}: not an npy file: {' '.join(str(error).split())}") from error
    if not isinstance(data, np.ndarray):
        raise UserError(f"{path}: an npz archive; allowed: one npy array (N, 3, T, V, M)")
    return data


def check_members(members: Sequence[zipfile.ZipInfo], max_bytes: int) -> None:
    """Raises BadZipFile for members of a zip archive that cannot be read within `max_bytes`, by
    their own account: zipfile unpacks no more of a member than that, except of bz2 and LZMA."""
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    odd = next((member for member in members if member.compress_type not in known), None)
    if odd is not None:
        raise zipfile.BadZipFile(f"{odd.filename[:60]!r} is neither stored nor deflated")
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("two members have the same name")
    num_byte = sum(member.file_size for member in members)
    if num_byte > max_bytes:
        raise zipfile.BadZipFile(f"{num_byte} bytes unpacked; allowed: {max_bytes}")


def read_npz(path: PathLike, what: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, by name; no code of the file is run. Raises UserError for any
    other file: it is not `what`."""
    try:
        with open_file(path) as content, np.load(content, allow_pickle=False) as file:
            check_members(file.zip.infolist(), MAX_NPZ_BYTES)
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except NO_ARRAY as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: not {what}: {reason}") from error
    others = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if others:  # NumPy gives the bytes of a member that does not begin like an array
        raise UserError(f"{path}: not {what}: {others[0]} is no array")
    return arrays
