"""A user's own data as the generator wants them, with the check that they go through first."""

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
    """Reads a user's own clips; an item's place is that of its Entry."""

    def __init__(self, path: str, files: KeypointFiles, wanted: Wanted) -> None:
        self._path = path
        self._files = files
        self._wanted = wanted

    def read(self, item: Item) -> Clip:
        """Raises BadRecording, naming the clip."""
        return clip_of(self._files.load(item.place), self._wanted, self._where(item))

    def examine(self, item: Item) -> Facts:
        """What the check needs to know. Raises BadRecording, naming the clip."""
        return facts_of(self._files.load(item.place), self._wanted, self._where(item))

    def _where(self, item: Item) -> str:
        return f"{self._path}: {item.name}"

    def close(self) -> None:
        """Nothing stays open."""


def keypoint_source(path: str, wanted: Wanted) -> Source:
    """The clips of the two splits that are wanted, in the order in which the data list them.

    Raises UserError for a path that holds no such data, and where the list itself is damaged.
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
    """None for a clip of another split; two for one that is in both, which the check refuses."""
    return [
        Item(entry.name, phase, entry.label - wanted.first_label, entry.place)
        for phase, split in wanted.splits.items()
        if split in entry.splits
    ]


def _open(path: str) -> KeypointFiles:
    key = f"{KEY}source_path"
    mend = f"give a pickle of pyskl or mmaction2, or a folder with {INDEX}: --set {key}=PATH"
    if not path or not os.path.exists(path):
        raise UserError(f"{key} is {path!r}, which does not exist; {mend}")
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, INDEX)):
            raise UserError(f"{key} is {path!r}, a folder without {INDEX} (docs/data.md); {mend}")
        return Folder(path)
    if not path.endswith((".pkl", ".pickle")):
        raise UserError(f"{key} is {path!r}, neither a folder nor a .pkl file; {mend}")
    return Pickle(path)
