"""Frames of people, recognised and painted one after another."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from apps.video.drawing import Front, Painter, Points
from apps.video.recognition import People
from apps.video.session import Session


@dataclass(frozen=True)
class Frame:
    """people: as the network wants them. points: the same where they are drawn. image: (H, W, 3)
    uint8 that they lie on, None for none."""

    people: People
    points: Points
    image: np.ndarray | None = None


class Stopwatch:
    """Seconds spent in each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.begin = time.perf_counter()

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start

    def summary(self, count: int) -> str:
        """'31.2 frames/s: pose 61 %, recognition 22 %, ...', of all `count` frames."""
        total = time.perf_counter() - self.begin
        shares = [f"{part} {100 * spent / total:.0f} %" for part, spent in self.seconds.items()]
        return f"{count / total:.1f} frames/s: {', '.join(shares)}"


def of_recording(positions: np.ndarray, is_3d: bool) -> Iterator[Frame]:
    """positions: (3, T, V, M)."""
    front = Front(positions, is_3d)
    there = np.any(positions, axis=(0, 2))  # T, M
    for t in range(positions.shape[1]):
        people = {int(m): positions[:, t, :, m] for m in np.flatnonzero(there[t])}
        yield Frame(people, {m: front.points(joints) for m, joints in people.items()})


def play(
    frames: Iterable[Frame], session: Session, painter: Painter | None, watch: Stopwatch
) -> Iterator[Image.Image]:
    """Recognises one frame after another; gives each one painted, if there is a painter."""
    for frame in frames:
        with watch.of("recognition"):
            session.push(frame.people)
        if painter is not None:
            with watch.of("drawing"):
                image = painter.frame(frame.image, frame.points)
            yield image
