"""Finding recordings in folders and zip archives, and reading their bytes."""

from __future__ import annotations

import contextlib
import functools
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from errors import UserError
from reader.clip import BadRecording
from reader.shared import files_below, read_file
from safe_io import UnreadableFile, check_members, open_file, read_text

SUFFIX = ".skeleton"
# The longest recordings of NTU RGB+D have a few MB. A larger file is not a recording, and reading
# it would break the bound on memory.
MAX_BYTES = 16 * 2**20

# The exceptions that zipfile raises for damaged archives and members.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError)
_MISSING_FILE = Path(__file__).parent / "missing.txt"


@dataclass(frozen=True)
class Recording:
    """The location of one recording: a file, or a member of the zip archive `file`."""

    name: str
    file: str
    member: str
    size: int

    @property
    def where(self) -> str:
        return f"{self.file}/{self.member}" if self.member else self.file


def find_recordings(path: str, key: str) -> tuple[list[Recording], int]:
    """All `.skeleton` files in a zip archive, or in a folder, its subfolders (symbolic links are
    followed) and their archives, sorted by name; and the number of further copies of the same
    recording, which were dropped.

    key: the setting of `path`, for messages. Raises UserError for a path that is missing or has no
    recordings, a damaged archive, and recordings with equal names and different sizes.
    """
    root = Path(path)
    fix = f"give the folder of {SUFFIX} files or the official zip archive: --set {key}=PATH"
    if os.path.isdir(root):
        found = list(_below(root))
    elif not os.path.exists(root):
        raise UserError(f"{key} is {path!r}, which does not exist; {fix}")
    elif root.suffix.lower() == ".zip":
        found = list(_in_archive(str(root)))
    else:
        raise UserError(f"{key} is {path!r}, neither a folder nor a .zip; {fix}")
    if not found:
        raise UserError(f"{key} is {path!r}, which contains no {SUFFIX} file; {fix}")
    return _without_copies(sorted(found, key=lambda recording: (recording.name, recording.where)))


def _below(root: Path) -> Iterator[Recording]:
    for folder, name in files_below(str(root)):
        file = os.path.join(folder, name)
        if _is_recording(name):
            # A dangling symbolic link has no size; reading it fails later with its name.
            size = os.path.getsize(file) if os.path.exists(file) else 0
            yield Recording(name, file, "", size)
        elif name.lower().endswith(".zip") and not name.startswith("."):
            yield from _in_archive(file)


def _in_archive(file: str) -> Iterator[Recording]:
    try:
        with open_file(file) as content, zipfile.ZipFile(content) as archive:
            members = archive.infolist()
    except (*_DAMAGED, OSError) as error:
        reason = f"not a complete zip archive ({error}); copy or download it again"
        raise UserError(f"{file}: {reason}") from error
    for info in members:
        name = PurePosixPath(info.filename).name
        if _is_recording(name) and not info.is_dir():
            yield Recording(name, file, info.filename, info.file_size)


def _is_recording(name: str) -> bool:
    # Archives created on macOS contain a '._S001...skeleton' with Finder data for every file.
    return name.endswith(SUFFIX) and not name.startswith(".")


def _without_copies(found: list[Recording]) -> tuple[list[Recording], int]:
    """Keep the first of each name: an unpacked archive may still be next to its files."""
    kept = found[:1]
    for recording in found[1:]:
        if recording.name != kept[-1].name:
            kept.append(recording)
        elif recording.size != kept[-1].size:
            raise UserError(
                f"{recording.where} and {kept[-1].where} have the same name but different sizes; "
                "remove the wrong one"
            )
    return kept, len(found) - len(kept)


class RecordingFiles:
    """Reads recordings and keeps archives open: listing the 56,880 members of the NTU RGB+D archive
    takes a second, reading one of them a millisecond."""

    def __init__(self) -> None:
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._open = contextlib.ExitStack()

    def close(self) -> None:
        """Close the archives."""
        self._open.close()

    def read(self, recording: Recording) -> bytes:
        """The bytes of a recording. Raises BadRecording if they cannot be read completely."""
        if recording.size > MAX_BYTES:
            reason = f"{recording.size} bytes; the limit for a recording is {MAX_BYTES}"
            raise BadRecording(recording.where, reason)
        if not recording.member:
            return read_file(recording.file, MAX_BYTES)
        try:
            if recording.file not in self._archives:
                content = self._open.enter_context(open_file(recording.file))
                self._archives[recording.file] = zipfile.ZipFile(content)
            archive = self._archives[recording.file]
            check_members([archive.getinfo(recording.member)], MAX_BYTES)
            return archive.read(recording.member)
        except UnreadableFile as error:
            reason = error.reason
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
        except _DAMAGED as error:
            reason = f"damaged in the archive: {error}"
        except RuntimeError as error:  # raised by zipfile for a member with a password
            reason = f"cannot be unpacked: {error}"
        raise BadRecording(recording.where, reason)


@functools.lru_cache(maxsize=1)
def missing_skeletons() -> frozenset[str]:
    """File names of the 535 NTU RGB+D recordings whose skeletons are missing or incomplete, as
    published with the data set. Results on NTU RGB+D are reported without them."""
    lines = read_text(_MISSING_FILE).splitlines()
    return frozenset(line + SUFFIX for line in lines if not line.startswith("#"))
