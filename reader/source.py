"""The interface between the generator and the readers: a Source of recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from reader.clip import BadRecording, Clip


@dataclass(frozen=True)
class Item:
    """One recording of the data set. name: as in the label file. phase: 'train' or 'eval'. label:
    from 0. location: what its reader needs to find it."""

    name: str
    phase: str
    label: int
    location: Any


class ItemReader(Protocol):
    """Reads recordings. It is copied to the reader processes before its first use."""

    def read(self, item: Item) -> Clip:
        """Raises BadRecording if the recording cannot be used."""

    def close(self) -> None:
        """Close open files."""


@dataclass(frozen=True)
class Report:
    """The result of a check. text: the full report. errors: what must be fixed, one line each."""

    text: str
    errors: Sequence[str]


@dataclass(frozen=True)
class Check:
    """How recordings are checked before the data set is written.

    examine: extracts the facts of one recording; may raise BadRecording. judge: writes the report
    from the results of all, in order.
    """

    examine: Callable[[Item], Any]
    judge: Callable[[Iterable[Any]], Report]


@dataclass(frozen=True)
class Source:
    """The recordings of a data set, chosen but not read.

    about: their origin, for the manifest. bad: recordings already known to be unusable, by name.
    counters: numbers of excluded recordings, for the manifest. left_out: the excluded recordings
    that the manifest names: {'file', 'reason'}. warnings: for the log. in_processes: whether
    reading in several processes pays off and the reader is small enough to copy to them. check:
    for data of unknown quality; items may be invalid until it has passed.
    """

    about: dict[str, Any]
    items: Sequence[Item]
    reader: ItemReader
    bad: Sequence[tuple[str, BadRecording]] = ()
    counters: dict[str, int] = field(default_factory=dict)
    left_out: Sequence[dict[str, str]] = ()
    warnings: Sequence[str] = ()
    in_processes: bool = True
    check: Check | None = None
