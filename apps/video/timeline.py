"""Logits over time -> who does what from when to when, and the files that say so. NumPy only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.predictions import probabilities
from errors import UserError, printable
from report import write_csv
from safe_io import whole_file

NO_ACTION = "no action"
SUFFIXES = (".json", ".csv", ".srt")
KEEP = 0.75  # of the threshold: above it, a label that is there stays
NOTHING = -1  # the class of no action
Row = dict[str, Any]


@dataclass(frozen=True)
class Smoothing:
    """threshold: probability from which a class counts; below KEEP of it there is no action. hold:
    answers in which a new class must be the best one before it replaces the old."""

    threshold: float = 0.3
    hold: int = 2


@dataclass
class _Segment:
    label: int
    start: float  # frames
    total: float = 0.0
    count: int = 0


class Labels:
    """The labels of one person, or of the scene, from a frame on. Answers come in the order of
    their frames; a change of class counts from the first of the answers that made it, and the first
    class counts at once. It keeps segments, and at most `hold` answers."""

    def __init__(self, start: float, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self.current, self.probability = NOTHING, np.zeros(0)
        self._wanted = NOTHING
        self._waiting: list[tuple[float, np.ndarray]] = []  # answers that want another class
        self._segments = [_Segment(NOTHING, start)]
        self._last = start  # frame of the last answer that a segment has

    def push(self, frame: float, logits: np.ndarray) -> None:
        """An answer. frame: the middle of what it was computed from. logits: (num_class,)."""
        frame = max(frame, self._segments[0].start)  # a window may begin before
        is_first = not self.probability.size
        self.probability = probabilities(logits)
        wanted = self._best()
        if wanted != self._wanted:
            self._settle()
        self._wanted = wanted
        self._waiting.append((frame, self.probability))
        if is_first or len(self._waiting) >= self.smoothing.hold:
            self.current = wanted
        if wanted == self.current:
            self._settle()

    def _best(self) -> int:
        """The class of the newest answer, with hysteresis."""
        best, now = int(self.probability.argmax()), self.current
        if self.probability[best] >= self.smoothing.threshold:
            return best
        stays = now != NOTHING and self.probability[now] >= KEEP * self.smoothing.threshold
        return now if stays else NOTHING

    def _settle(self) -> None:
        """The waiting answers get the current class."""
        for frame, probability in self._waiting:
            segment = self._segments[-1]
            if segment.label != self.current:
                if segment.count:  # else nothing has been answered: the segment begins here
                    segment = _Segment(self.current, (self._last + frame) / 2)
                    self._segments.append(segment)
                segment.label = self.current
            value = probability.max() if self.current == NOTHING else probability[self.current]
            segment.total += float(value)
            segment.count += 1
            self._last = frame
        self._waiting.clear()

    def rows(self, end: float, name: Callable[[int], str], frame_rate: float) -> list[Row]:
        """The segments up to a frame: start and end in seconds, label, and confidence, the mean
        probability of the label (of the best class, for no action). They follow each other; those
        shorter than a frame are left out. Empty without an answer. name: of a class."""
        self._settle()
        found = [segment for segment in self._segments if segment.count]
        stops = [segment.start for segment in found[1:]] + [end]
        return [
            {
                "start": round(segment.start / frame_rate, 3),
                "end": round(stop / frame_rate, 3),
                "label": NO_ACTION if segment.label == NOTHING else name(segment.label),
                "confidence": round(segment.total / segment.count, 4),
            }
            for segment, stop in zip(found, stops)
            if stop - segment.start >= 1
        ]


def check_output(path: Path) -> None:
    """Raises UserError for a file that `write` does not know how to write."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"--output {path}: allowed: a name ending in {', '.join(SUFFIXES)}")


def write(path: Path, tree: Row) -> None:
    """tree: with `scene` and `persons`, lists of segments. As JSON, whole; as CSV, a line for each
    segment; or as subtitles (SRT) of the scene."""
    if path.suffix == ".csv":
        head = ["person", "start", "end", "label", "confidence"]
        rows = [*tree["scene"], *tree["persons"]]
        write_csv(path, [head, *([row.get(key, "scene") for key in head] for row in rows)])
        return
    with whole_file(path, "w") as file:
        if path.suffix == ".json":
            json.dump(tree, file, indent=1)
        else:
            file.write(_subtitles(tree["scene"]))


def _subtitles(rows: Sequence[Row]) -> str:
    """SubRip: number, times, text, blank line. Frames without an action have no subtitle."""
    shown = [row for row in rows if row["label"] != NO_ACTION]
    return "".join(
        f"{n}\n{_clock(row['start'])} --> {_clock(row['end'])}\n"
        f"{printable(row['label'])} ({100 * row['confidence']:.0f} %)\n\n"
        for n, row in enumerate(shown, 1)
    )


def _clock(seconds: float) -> str:
    """'00:01:02,500'."""
    millis = round(1000 * seconds)
    minutes, rest = divmod(millis, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"
