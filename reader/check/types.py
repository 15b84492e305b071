"""Input (Evidence) and output (Problem) of the rules of the data check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reader.clip import BadRecording
from reader.keypoint.types import Entry, Facts, Wanted
from reader.source import Item

MAX_NAMED = 5  # clips listed by a problem


@dataclass(frozen=True)
class Problem:
    """what: one line with the problem and the value found. fix: what to do. clips: those that have
    it. An error stops the generator; a warning does not."""

    is_error: bool
    what: str
    fix: str
    clips: Sequence[str] = ()

    def line(self) -> str:
        """The whole problem in one line."""
        clips = f" ({self.named()})" if self.clips else ""
        return f"{self.what}{clips}; {self.fix}"

    def named(self) -> str:
        """The first MAX_NAMED clips, and the number of the others."""
        more = f" and {len(self.clips) - MAX_NAMED} more" if len(self.clips) > MAX_NAMED else ""
        return ", ".join(self.clips[:MAX_NAMED]) + more


def error(what: str, fix: str, clips: Sequence[str] = ()) -> Problem:
    """A problem that stops the generator."""
    return Problem(True, what, fix, clips)


def warning(what: str, fix: str, clips: Sequence[str] = ()) -> Problem:
    """A problem that does not stop the generator."""
    return Problem(False, what, fix, clips)


@dataclass(frozen=True)
class Evidence:
    """The input of the rules.

    entries: all clips in the data's list. notes: irregularities of the list. items: the clips of
    the two splits. results: of examining the items, in the same order.
    """

    path: str
    wanted: Wanted
    entries: Sequence[Entry]
    notes: Sequence[str]
    items: Sequence[Item]
    results: Sequence[Facts | BadRecording]

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

    def seen(self) -> list[tuple[Item, Facts]]:
        """Sound clips with at least one person."""
        return [(item, facts) for item, facts in self.sound() if facts.body_frames]
