"""Atomic file writes, and readers that never run code from a file; pickles: `safe_pickle`. Imports
only `errors` from this project, and nothing heavy."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
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
MAX_YAML_VALUES = 100_000  # of one file; an aliased value counts once per reference


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


def check_writable(path: PathLike) -> None:
    """Raises UserError where `whole_file` could not write: to be known before long work."""
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
    refuse_pipe(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error


def refuse_pipe(path: PathLike) -> None:
    """Raises UserError for a pipe or a device, whose data may never end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(f"{path}: a pipe or a device; allowed: a file")


def file_hash(path: PathLike) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# What NumPy raises for damaged .npz files, files of other kinds, and pickled objects.
_NO_NPZ = (
    *(ValueError, TypeError, AttributeError, KeyError, EOFError, MemoryError, RuntimeError),
    *(SyntaxError, OverflowError, zipfile.BadZipFile, zlib.error),
)


# The same for damaged .npy files.
_NO_NPY = (*_NO_NPZ, OSError, RecursionError, TokenError)


def open_npy(path: PathLike) -> np.ndarray:
    """The memory map of one array. Raises UserError for a missing or damaged file, an archive, and
    a pipe."""
    refuse_pipe(path)
    try:
        with np.errstate(over="ignore"):  # a damaged header may give an enormous size
            data = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except _NO_NPY as error:
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
        with np.load(path, allow_pickle=False) as file:
            check_members(file.zip.infolist(), MAX_NPZ_BYTES)
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _NO_NPZ as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: not {what}: {reason}") from error
