"""What the generator asks of every kind of recordings: which to take, and how to read one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from reader.clip import BadRecording, Clip


@dataclass(frozen=True)
class Item:
    """One recording that is taken. name: as in the label file. phase: 'train' or 'eval'. label:
    from 0. place: what its reader finds it by."""

    name: str
    phase: str
    label: int
    place: Any


class ItemReader(Protocol):
    """Reads one recording after another. It is copied into the reading processes, unused."""

    def read(self, item: Item) -> Clip:
        """Raises BadRecording where the recording cannot be used."""

    def close(self) -> None:
        """Let go of open files."""


@dataclass(frozen=True)
class Report:
    """What a check has found. text: all of it. errors: what must be mended first, a line each."""

    text: str
    errors: Sequence[str]


@dataclass(frozen=True)
class Check:
    """How recordings are looked at before anything is made of them.

    examine: one of them; may raise BadRecording. judge: what came of all, in their order.
    """

    examine: Callable[[Item], Any]
    judge: Callable[[Iterable[Any]], Report]


@dataclass(frozen=True)
class Source:
    """The recordings of a data set, chosen but not read.

    about: what the manifest says of their origin. bad: recordings that are refused already, by
    name. counters: numbers for the manifest, of recordings that were not taken. left_out: those
    of them that the manifest names: {'file', 'reason'}. warnings: for the log. in_processes:
    reading is worth processes of its own, and the reader small enough to be copied into them.
    check: for recordings that nobody has looked at yet; items may be wrong until it has passed.
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
