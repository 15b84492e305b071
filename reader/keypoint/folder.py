"""A folder of clips: index.csv lists them, and each clip is a .npy, .npz or .csv file.

index.csv has the columns file, label and split, and may have person and fps. `person` is for clips
with one file per person: 0, 1, ..., and a file called <clip>_p<person>.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from errors import UserError
from reader.clip import BadRecording
from reader.keypoint.labels import numbers_of
from reader.keypoint.table import is_number, read_table
from reader.keypoint.types import Entry, Raw, Wanted
from reader.shared import files_below
from safe_io import NO_ARRAY, UnreadableFile, check_file, check_members, read_text

INDEX = "index.csv"
MAX_ROWS = 500_000  # of it; Kinetics-400 has 260,000 clips
SUFFIXES = (".npy", ".npz", ".csv")
MAX_BYTES = 512 * 2**20  # of one array; 10,000 frames of ten persons with 133 joints are smaller
_COLUMNS = ("file", "label", "split")
# The exceptions that NumPy raises for damaged files.


class Folder:
    """The clips of such a folder. entries: all, in order. notes: irregularities of the list, and
    remarks: how it was understood, both for the report."""

    in_memory = False

    def __init__(self, path: str, wanted: Wanted) -> None:
        """Raises UserError, naming the line, if index.csv cannot be used."""
        self._path = path
        index = os.path.join(path, INDEX)
        rows = _rows(index)
        where = [f"{index}, line {line}" for line, _ in rows]
        labels, self.remarks = numbers_of([row["label"] for _, row in rows], where, wanted)
        self.entries = _stacked(rows, labels, index)
        if not self.entries:
            raise UserError(f"{index}: lists no clips")
        self.notes = self._unlisted()

    def _unlisted(self) -> list[str]:
        # Compared without symbolic links: a folder is found once, but may be listed by its link.
        listed = {self._real(file) for entry in self.entries for file in entry.location}
        listed.add(self._real(INDEX))
        found = (
            os.path.relpath(os.path.join(folder, name), self._path)
            for folder, name in files_below(self._path, skip_unreadable=True)
            if name.endswith(SUFFIXES)
        )
        extra = sorted(file for file in found if self._real(file) not in listed)
        if not extra:
            return []
        return [f"{len(extra)} files are not in {INDEX} and not used: {', '.join(extra[:5])}"]

    def _real(self, file: str) -> str:
        return os.path.realpath(os.path.join(self._path, file))

    def load(self, location: tuple[str, ...]) -> Raw:
        """location: the clip's files. Raises BadRecording."""
        found = [read_array(os.path.join(self._path, file)) for file in location]
        notes = dict.fromkeys(note for _, notes in found for note in notes)
        return Raw([array for array, _ in found], notes=tuple(notes))


def _rows(index: str) -> list[tuple[int, dict[str, str]]]:
    """(line number, column -> stripped text) of each row that is not blank."""
    lines = csv.reader(io.StringIO(read_text(index), newline=""), strict=True)
    try:
        head = [name.strip().lower() for name in next(lines, [])]
        rows = []
        for row in filter(None, lines):
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((lines.line_num, cells))
            if len(rows) > MAX_ROWS:
                raise UserError(f"{index}: more than {MAX_ROWS:,} rows; split the data")
    except csv.Error as error:
        raise UserError(f"{index}: not readable as CSV: {error}") from error
    missing = [name for name in _COLUMNS if name not in head]
    if missing:
        raise UserError(
            f"{index}: its first line is {','.join(head)[:80]!r}, without {', '.join(missing)}; "
            "allowed: file,label,split and optionally person,fps"
        )
    for line, row in rows:
        if len(row) != len(head):
            raise UserError(f"{index}, line {line}: {len(row)} fields; must be {len(head)}")
    return [(line, dict(zip(head, row))) for line, row in rows]


def _stacked(
    rows: Sequence[tuple[int, dict[str, str]]], labels: Sequence[int], index: str
) -> list[Entry]:
    """One Entry per clip: the rows of its persons are combined, person 0 first. labels: the number
    of each row's class."""
    clips: dict[Any, dict[int, Entry]] = {}  # the person's number -> Entry, of each clip
    for (line, row), label in zip(rows, labels):
        where = f"{index}, line {line}"
        entry, person = _entry(row, label, where)
        same = clips.setdefault(line if person is None else (entry.name, row["split"]), {})
        if person in same:
            raise UserError(f"{where}: duplicate person {person} of {entry.name}")
        first = next(iter(same.values()), entry)
        if (entry.label, entry.fps) != (first.label, first.fps):
            raise UserError(
                f"{where}: label or fps differ from those of {first.location[0]} in the same clip "
                f"{entry.name}"
            )
        same[person or 0] = entry
    return [_combined(same, index) for same in clips.values()]


def _combined(same: Mapping[int, Entry], index: str) -> Entry:
    first, persons = next(iter(same.values())), sorted(same)
    if persons != list(range(len(same))):
        raise UserError(
            f"{index}: {first.name} has persons {', '.join(map(str, persons))}; must be "
            "0, 1, ... without gaps"
        )
    return replace(first, location=tuple(same[person].location[0] for person in persons))


def _entry(row: Mapping[str, str], label: int, where: str) -> tuple[Entry, int | None]:
    """The clip of a row, and the number of its person, if given."""
    path = PurePosixPath(row["file"].replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or ":" in row["file"] or "\0" in row["file"]
    if not row["file"] or outside:
        raise UserError(f"{where}: file is {row['file']!r}; must be a path inside this folder")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{where}: file is {row['file']!r}; must end in {', '.join(SUFFIXES)}")
    if not row["split"]:
        raise UserError(f"{where}: split is blank; must be a name, e.g. train")
    name, person = str(path), None
    if row.get("person"):
        ending = f"_p{row['person']}"
        if not re.fullmatch(r"[0-9]{1,3}", row["person"]) or not path.stem.endswith(ending):
            raise UserError(
                f"{where}: person is {row['person']!r} and file {row['file']!r}; must be 0, 1, ... "
                "and a file called <clip>_p<person>, or leave person blank (docs/data.md)"
            )
        person = int(row["person"])
        name = str(path.with_suffix(""))[: -len(ending)]
    fps = _fps(row.get("fps", ""), where)
    return Entry(name, label, (row["split"],), fps, (str(path),)), person


def _fps(text: str, where: str) -> float:
    fps = float(text or 0) if is_number(text or "0") else -1.0
    if not 0 <= fps <= 1e5:
        raise UserError(f"{where}: fps is {text!r}; must be frames per second, or blank")
    return fps


def read_array(file: str) -> tuple[np.ndarray, list[str]]:
    """The array of a .npy, .npz (its only one, or the one called keypoint) or .csv file, and what
    was skipped of a table (see `read_table`). Raises BadRecording."""
    try:
        check_file(file, MAX_BYTES)
        return read_table(file) if file.endswith(".csv") else (_read_numpy(file), [])
    except UnreadableFile as error:
        raise BadRecording(file, error.reason) from error
    except NO_ARRAY as error:
        reason = " ".join(str(error).split())[:150]
        raise BadRecording(file, f"not readable as {file[-3:]}: {reason}") from error


def _read_numpy(file: str) -> np.ndarray:
    content = np.load(file, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        names = content.files
        if len(names) != 1 and "keypoint" not in names:
            reason = f"contains arrays {', '.join(names)}; must be one, or one called keypoint"
            raise BadRecording(file, reason)
        name = names[0] if len(names) == 1 else "keypoint"
        # A small archive may unpack to more than fits into memory.
        check_members([content.zip.getinfo(f"{name}.npy")], MAX_BYTES)
        array = content[name]
        if not isinstance(array, np.ndarray):  # NumPy gives the bytes of any other member
            raise BadRecording(file, f"{name} is no array")
        return array
