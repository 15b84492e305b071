"""The recordings of an NTU-style protocol, selected by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from dataset.protocols import MAX_FRAME, ClipName, Protocol
from errors import UserError
from reader.clip import BadRecording, Clip
from reader.ntu.prenormalise import transform
from reader.ntu.reader import parse
from reader.ntu.recordings import Recording, RecordingFiles, find_recordings, missing_skeletons
from reader.source import Item, Source


class NTUReader:
    """Reads `.skeleton` recordings; an item's location is its Recording. normalise: apply
    `transform`. repair_order: as for `parse`."""

    def __init__(self, normalise: bool, repair_order: bool = False) -> None:
        self._normalise, self._repair_order = normalise, repair_order
        self._files = RecordingFiles()

    def read(self, item: Item) -> Clip:
        """Raises BadRecording, naming the file and the line."""
        data, where = self._files.read(item.location), item.location.where
        clip = parse(data, where, self._repair_order)
        positions = transform(clip.padded(MAX_FRAME)) if self._normalise else clip.positions
        return replace(clip, positions=positions)

    def close(self) -> None:
        """Close the archives."""
        self._files.close()


def ntu_source(path: str, key: str, rules: Protocol, normalise: bool, repair_order: bool) -> Source:
    """The recordings in `path` that belong to a protocol, sorted by name.

    key: the setting of `path`, for messages. Raises UserError for a path without recordings (see
    `find_recordings`), or with none of this protocol.
    """
    found, second_copies = find_recordings(path, key)
    items, bad, counters = _select(found, rules)
    if not items and not bad:
        raise UserError(
            f"{key} is {path!r}, where none of the {len(found)} recordings belongs to {rules.name}"
        )
    counters = {"second_copies": second_copies, **counters}
    reader = NTUReader(normalise, repair_order)
    return Source(
        {"kind": "ntu"}, items, reader.read, bad, counters, files=contextlib.closing(reader)
    )


def _select(
    found: Sequence[Recording], rules: Protocol
) -> tuple[list[Item], list[tuple[str, BadRecording]], dict[str, int]]:
    # Synthetic recordings have the same naming scheme, but the list applies only to NTU RGB+D.
    missing = missing_skeletons() if rules.source.startswith("ntu") else frozenset()
    counters = {"missing_skeletons": 0, "other_actions": 0}
    items, bad = [], []
    for recording in found:
        try:
            name = ClipName.parse(recording.name)
        except ValueError as error:
            bad.append((recording.name, BadRecording(recording.where, str(error))))
            continue
        if recording.name in missing:
            counters["missing_skeletons"] += 1
        elif not 1 <= name.action <= rules.num_class:
            counters["other_actions"] += 1
        else:
            phase = "train" if rules.is_train(name) else "eval"
            items.append(Item(recording.name, phase, name.action - 1, recording))
    return items, bad, counters
