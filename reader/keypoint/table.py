"""A clip as a table of numbers in a .csv file, one line per frame.

Besides the numbers of the joints, tables that pandas writes contain a first line of column numbers
(0, 1, ..., n-1) or names, and a first column that numbers the frames; both are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from reader.clip import BadRecording
from safe_io import read_text

COLUMN_NUMBERS = "a first line of column numbers was skipped"
INDEX_COLUMN = "a first column of frame numbers was skipped"
EMPTY_CELLS = "joints with empty cells are missing"
_UNNAMED = ("", "unnamed: 0")  # pandas' names of an index without a name
_INDEX_NAMES = ("index", "frame", "frame_id", "frame_index", "frame_number", "frame_num")
_EMPTY = re.compile(r'(^|,)[ \t]*(?:"")?[ \t]*(?=,|$)')
_MIN_COLUMNS = 4  # of a first line of column numbers; fewer may be a frame
_MIN_FRAMES = 3  # that a column without a name must count; fewer may be a coordinate


def read_table(file: str) -> tuple[np.ndarray, list[str]]:
    """(the numbers, (T, n); what was skipped). Empty cells are masked (np.ma.MaskedArray).

    Raises UnreadableFile, BadRecording for a file without numbers, and ValueError for other cells.
    """
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    head = [cell.strip(' \t"') for cell in lines[0].split(",")] if lines else []
    is_named = not is_number(next(filter(None, head), "0"))
    is_numbered = len(lines) > 1 and _count(head[1:] if head[0] == "" else head, _MIN_COLUMNS)
    if is_named or is_numbered:
        lines = lines[1:]
    else:
        head = []
    if not lines:
        raise BadRecording(file, "contains no numbers")
    table, notes = _numbers(lines), [COLUMN_NUMBERS] * is_numbered
    if _has_index(head, table):
        table = table[:, 1:]
        notes.append(INDEX_COLUMN)
    if np.ma.is_masked(table):
        notes.append(EMPTY_CELLS)
    return table, notes


def _numbers(lines: Sequence[str]) -> np.ndarray:
    filled = [_EMPTY.sub(r"\1nan", line) for line in lines]
    table = np.loadtxt(filled, delimiter=",", ndmin=2, comments=None)
    if filled == list(lines):
        return table
    empty = [[not cell.strip(' \t"') for cell in line.split(",")] for line in lines]
    return np.ma.MaskedArray(table, np.array(empty))


def _has_index(head: Sequence[str], table: np.ndarray) -> bool:
    """Whether the first column numbers the frames. head: the names of the columns, if any; if the
    first has one, it decides."""
    column = np.ma.filled(table[:, 0], np.nan)
    if (
        table.shape[1] == 1
        or not (column == np.round(column)).all()
        or (np.diff(column) <= 0).any()
    ):
        return False
    if not head:
        return _count(column, _MIN_FRAMES)
    return head[0].lower() in (*_UNNAMED, *_INDEX_NAMES)


def _count(cells: Sequence[str] | np.ndarray, least: int) -> bool:
    """Whether they are 0, 1, 2, ... or 1, 2, 3, ..., and at least so many."""
    if len(cells) < least:
        return False
    if not isinstance(cells, np.ndarray) and not all(map(is_number, cells)):
        return False
    numbers = np.array(cells, np.float64)
    return any((numbers == np.arange(len(cells)) + first).all() for first in (0, 1))


def is_number(text: str) -> bool:
    """Whether it is a number in ASCII; `float` would also read 1_0 and digits of other scripts."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text
