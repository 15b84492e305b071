"""The interface between the generator and the readers: a Source of recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from reader.clip import BadRecording, Clip


@dataclass(frozen=True)
class Item:
    """One recording of the data set. name: as in the label file. phase: 'train' or 'eval'. label:
    from 0. location: what its reader needs to find it."""

    name: str
    phase: str
    label: int
    location: Any


@dataclass(frozen=True)
class Report:
    """The result of a check. text: the full report. errors: what must be fixed, one line each.
    copies: phase -> names of its clips that are copies of training clips, for the manifest."""

    text: str
    errors: Sequence[str]
    copies: dict[str, list[str]]


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

    about: their origin, for the manifest. read: may raise BadRecording; it is copied to the reader
    processes before its first use. bad: recordings already known to be unusable, by name. counters:
    numbers of excluded recordings, for the manifest. left_out: the excluded recordings that the
    manifest names: {'file', 'reason'}. warnings: for the log. in_processes: whether reading in
    several processes pays off and `read` is small enough to copy to them. check: for data of
    unknown quality; items may be invalid until it has passed. files: what `read` keeps open.
    """

    about: dict[str, Any]
    items: Sequence[Item]
    read: Callable[[Item], Clip]
    bad: Sequence[tuple[str, BadRecording]] = ()
    counters: dict[str, int] = field(default_factory=dict)
    left_out: Sequence[dict[str, str]] = ()
    warnings: Sequence[str] = ()
    in_processes: bool = True
    check: Check | None = None
    files: AbstractContextManager[Any] = nullcontext()
