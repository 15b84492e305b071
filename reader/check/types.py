"""What the rules of the data check look at, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reader.clip import BadRecording
from reader.keypoint.types import Entry, Facts, Wanted
from reader.source import Item

MAX_NAMED = 5  # clips that a problem names


@dataclass(frozen=True)
class Problem:
    """what: one line that names the thing and the value seen. mend: what to do. clips: those that
    have it. An error stops; otherwise it is a warning."""

    is_error: bool
    what: str
    mend: str
    clips: Sequence[str] = ()

    def line(self) -> str:
        """All of it in one line."""
        clips = f" ({self.named()})" if self.clips else ""
        return f"{self.what}{clips}; {self.mend}"

    def named(self) -> str:
        """The first MAX_NAMED clips, and how many more there are."""
        more = f" and {len(self.clips) - MAX_NAMED} more" if len(self.clips) > MAX_NAMED else ""
        return ", ".join(self.clips[:MAX_NAMED]) + more


def error(what: str, mend: str, clips: Sequence[str] = ()) -> Problem:
    """A problem that stops."""
    return Problem(True, what, mend, clips)


def warning(what: str, mend: str, clips: Sequence[str] = ()) -> Problem:
    """A problem that does not."""
    return Problem(False, what, mend, clips)


@dataclass(frozen=True)
class Evidence:
    """All that is known when the check judges.

    entries: every clip that the data list. notes: what looked odd in the list. items: the clips
    of the two splits; results: what came of examining them, in the same order.
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
        """Clips that can."""
        pairs = zip(self.items, self.results)
        return [(item, result) for item, result in pairs if isinstance(result, Facts)]

    def sound(self) -> list[tuple[Item, Facts]]:
        """Those of them whose joints fit the layout and whose numbers are usable."""
        return [(i, facts) for i, facts in self.read() if facts.fits and not facts.unusable]

    def seen(self) -> list[tuple[Item, Facts]]:
        """Those of them that show somebody."""
        return [(item, facts) for item, facts in self.sound() if facts.body_frames]
