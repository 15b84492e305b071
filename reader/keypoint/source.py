"""A user's own data as a Source for the generator, with the data check."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from errors import UserError
from reader.check.data_check import check
from reader.check.types import Evidence
from reader.clip import BadRecording, reading
from reader.keypoint.clip import clip_of, facts_of
from reader.keypoint.folder import INDEX, Folder
from reader.keypoint.pickle_file import Pickle
from reader.keypoint.types import KEY, Entry, Facts, Raw, Wanted
from reader.source import Check, Item, Report, Source

Files = Folder | Pickle
Result = TypeVar("Result")


def _read(
    use: Callable[[Raw, Wanted], Result], path: str, files: Files, wanted: Wanted, item: Item
) -> Result:
    """`use` of the clip of an item, whose location is that of its Entry. Raises BadRecording."""
    with reading(f"{path}: {item.name}"):
        return use(files.load(item.location), wanted)


def keypoint_source(path: str, wanted: Wanted) -> Source:
    """The clips of the two configured splits, in the order of the data's list.

    Raises UserError for a path without such data, and if the list is damaged.
    """
    files = _open(path, wanted)
    items = [item for entry in files.entries for item in _items(entry, wanted)]

    def judge(results: Iterable[Facts | BadRecording]) -> Report:
        lists = files.entries, files.notes, items
        return check(Evidence(path, wanted, *lists, list(results), files.remarks))

    others = sum(not _items(entry, wanted) for entry in files.entries)
    return Source(
        {"kind": "keypoint"},
        items,
        functools.partial(_read, clip_of, path, files, wanted),
        counters={"in_other_splits": others},
        in_processes=not files.in_memory,
        check=Check(functools.partial(_read, facts_of, path, files, wanted), judge),
    )


def _items(entry: Entry, wanted: Wanted) -> Sequence[Item]:
    """None for a clip of other splits; two for a clip in both splits, which the check rejects."""
    return [
        Item(entry.name, phase, entry.label - wanted.first_label, entry.location)
        for phase, split in wanted.splits.items()
        if split in entry.splits
    ]


def _open(path: str, wanted: Wanted) -> Files:
    key = f"{KEY}source_path"
    fix = f"give a pickle of pyskl or mmaction2, or a folder with {INDEX}: --set {key}=PATH"
    if not path or not os.path.exists(path):
        raise UserError(f"{key} is {path!r}, which does not exist; {fix}")
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, INDEX)):
            raise UserError(f"{key} is {path!r}, a folder without {INDEX} (docs/data.md); {fix}")
        return Folder(path, wanted)
    if not path.endswith((".pkl", ".pickle")):
        raise UserError(f"{key} is {path!r}, neither a folder nor a .pkl file; {fix}")
    return Pickle(path, wanted)
