"""A user's own data as a Source for the generator, with the data check."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from errors import UserError
from reader.check.data_check import check
from reader.check.types import Evidence
from reader.clip import BadRecording, Clip
from reader.keypoint.clip import clip_of, facts_of
from reader.keypoint.folder import INDEX, Folder
from reader.keypoint.pickle_file import Pickle
from reader.keypoint.types import KEY, Entry, Facts, KeypointFiles, Wanted
from reader.source import Check, Item, Report, Source


class KeypointReader:
    """Reads a user's own clips; an item's location is that of its Entry."""

    def __init__(self, path: str, files: KeypointFiles, wanted: Wanted) -> None:
        self._path = path
        self._files = files
        self._wanted = wanted

    def read(self, item: Item) -> Clip:
        """Raises BadRecording, naming the clip."""
        return clip_of(self._files.load(item.location), self._wanted, self._where(item))

    def examine(self, item: Item) -> Facts:
        """The facts for the data check. Raises BadRecording, naming the clip."""
        return facts_of(self._files.load(item.location), self._wanted, self._where(item))

    def _where(self, item: Item) -> str:
        return f"{self._path}: {item.name}"

    def close(self) -> None:
        """No files stay open."""


def keypoint_source(path: str, wanted: Wanted) -> Source:
    """The clips of the two configured splits, in the order of the data's list.

    Raises UserError for a path without such data, and if the list is damaged.
    """
    files = _open(path)
    items = [item for entry in files.entries for item in _items(entry, wanted)]
    reader = KeypointReader(path, files, wanted)

    def judge(results: Iterable[Facts | BadRecording]) -> Report:
        return check(Evidence(path, wanted, files.entries, files.notes, items, list(results)))

    about = {
        **{"kind": "keypoint", "source": path, "transform": False, "unit": wanted.unit},
        **{"splits": dict(wanted.splits), "first_label": wanted.first_label},
    }
    others = sum(not _items(entry, wanted) for entry in files.entries)
    return Source(
        about,
        items,
        reader,
        counters={"in_other_splits": others},
        in_processes=not files.in_memory,
        check=Check(reader.examine, judge),
    )


def _items(entry: Entry, wanted: Wanted) -> Sequence[Item]:
    """None for a clip of other splits; two for a clip in both splits, which the check rejects."""
    return [
        Item(entry.name, phase, entry.label - wanted.first_label, entry.location)
        for phase, split in wanted.splits.items()
        if split in entry.splits
    ]


def _open(path: str) -> KeypointFiles:
    key = f"{KEY}source_path"
    fix = f"give a pickle of pyskl or mmaction2, or a folder with {INDEX}: --set {key}=PATH"
    if not path or not os.path.exists(path):
        raise UserError(f"{key} is {path!r}, which does not exist; {fix}")
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, INDEX)):
            raise UserError(f"{key} is {path!r}, a folder without {INDEX} (docs/data.md); {fix}")
        return Folder(path)
    if not path.endswith((".pkl", ".pickle")):
        raise UserError(f"{key} is {path!r}, neither a folder nor a .pkl file; {fix}")
    return Pickle(path)
