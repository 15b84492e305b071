"""Input (Evidence) and output (Problem) of the rules of the data check."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from reader.clip import BadRecording
from reader.keypoint.types import Entry, Facts, Wanted
from reader.source import Item

MAX_NAMED = 5  # clips listed by a problem


@dataclass(frozen=True)
class Problem:
    """what: one line with the problem and the value found. fix: what to do. clips: those that have
    it, or None if it is not one of clips; of no clip, it is ignored. An error stops the generator;
    a warning does not."""

    is_error: bool
    what: str
    fix: str
    clips: Sequence[str] | None = None

    def line(self) -> str:
        """The whole problem in one line."""
        clips = f" ({first_few(self.clips)})" if self.clips else ""
        return f"{self.what}{clips}; {self.fix}"


def first_few(names: Sequence[str]) -> str:
    """The first MAX_NAMED names, and the number of the others."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


error, warning = functools.partial(Problem, True), functools.partial(Problem, False)


@dataclass(frozen=True)
class Evidence:
    """The input of the rules.

    entries: all clips in the data's list. notes: irregularities of the list. items: the clips of
    the two splits. results: of examining the items, in the same order. remarks: how the
    list was understood.
    """

    path: str
    wanted: Wanted
    entries: Sequence[Entry]
    notes: Sequence[str]
    items: Sequence[Item]
    results: Sequence[Facts | BadRecording]
    remarks: Sequence[str] = ()

    def bad(self) -> list[tuple[Item, BadRecording]]:
        """Clips that cannot be read."""
        pairs = zip(self.items, self.results)
        return [(item, result) for item, result in pairs if isinstance(result, BadRecording)]

    def read(self) -> list[tuple[Item, Facts]]:
        """Clips that can be read."""
        pairs = zip(self.items, self.results)
        return [(item, result) for item, result in pairs if isinstance(result, Facts)]

    def sound(self) -> list[tuple[Item, Facts]]:
        """Readable clips whose joints match the layout and whose values are valid."""
        return [(i, facts) for i, facts in self.read() if facts.fits and not facts.unusable]

    def written(self) -> list[Item]:
        """The clips that will be written: without those that will be skipped."""
        sound = [item for item, _ in self.sound()] if self.wanted.skip_bad else []
        return sound or list(self.items)  # of no sound clip, another rule is an error

    def seen(self) -> list[tuple[Item, Facts]]:
        """Sound clips with at least one person."""
        return [(item, facts) for item, facts in self.sound() if facts.body_frames]
