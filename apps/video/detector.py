"""MediaPipe's person detector (BlazePose, Bazarevsky et al., 2020): where people are.

The image is scaled into a square of SIZE pixels, in -1..1. For each of 2254 anchors the network
gives a score and, in pixels from the anchor, a box and four points, of which the first two place
the person's square: the middle of the hips, and a point of the circle around them that holds the
body.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from apps.video.network import Network
from apps.video.region import Region, body_region, crop

SIZE = 224  # pixels
GRIDS = ((28, 2), (14, 2), (7, 6))  # cells a side, anchors a cell
MIN_SCORE = 0.5
MAX_OVERLAP = 0.3  # of the boxes of two people
WIDE = 4 / 3  # width / height from which tiles see more than the whole image
NUM_TILE = 3
_LARGEST_LOGIT = 80.0  # exp of more overflows float32


@dataclass(frozen=True)
class Detections:
    """Of D people. boxes: (D, 4) left, top, right, bottom. points: (D, 4, 2). scores: (D,) in
    0..1."""

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __getitem__(self, which: np.ndarray) -> Detections:
        return Detections(self.boxes[which], self.points[which], self.scores[which])


class Detector:
    """Finds people in images. tiles: also in parts of them, for several people."""

    def __init__(self, file: Path, num_thread: int, tiles: bool) -> None:
        """file: pose_detection.tflite."""
        network = Network(file, num_thread)
        network.take_bytes(-1, 1)
        self._network = network.compile()
        self._tiles, self._turn = tiles, 0

    def find(self, image: np.ndarray, thorough: bool) -> list[Region]:
        """The squares of the people in (H, W, 3) uint8, each once, the surest first. thorough: look
        at all views of the image, not at the next tile in turn: each costs a run of the network."""
        views = views_of(image.shape[0], image.shape[1], self._tiles)
        if not thorough:
            tiles = views[1:] or views
            views = [tiles[self._turn % len(tiles)]]
            self._turn += 1
        found = [self._look(image, view) for view in views]
        boxes, points, scores = (
            np.concatenate([getattr(part, name) for part in found])
            for name in ("boxes", "points", "scores")
        )
        people = suppress(Detections(boxes, points, scores))
        return [body_region(hips, rim) for hips, rim, *_ in people.points]

    def _look(self, image: np.ndarray, view: Region) -> Detections:
        boxes, logits = self._network.run(crop(image, view, SIZE)[None])
        found = suppress(decode(boxes[0], logits[0]))
        corners = view.to_image(found.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return Detections(corners, view.to_image(found.points), found.scores)


def views_of(height: int, width: int, tiles: bool) -> list[Region]:
    """The whole image, letterboxed; then, with tiles and where it is wide, overlapping squares as
    high as the image, in which distant people are larger."""
    views = [Region(width / 2, height / 2, max(height, width))]
    if tiles and width >= WIDE * height:
        centres = np.linspace(height / 2, width - height / 2, NUM_TILE)
        views += [Region(float(x), height / 2, height) for x in centres]
    return views


@cache
def anchors() -> np.ndarray:
    """(2254, 2) x, y in 0..1: the centres of the cells, row by row."""
    grids = []
    for cells, repeat in GRIDS:
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeat, axis=0))
    return np.concatenate(grids)


def decode(boxes: np.ndarray, logits: np.ndarray) -> Detections:
    """What the network gives -> people, in 0..1 of the square. boxes: (2254, 12) centre, size and
    four points. logits: (2254, 1)."""
    scores = 1 / (1 + np.exp(-np.clip(logits[:, 0], -_LARGEST_LOGIT, _LARGEST_LOGIT)))
    which = np.flatnonzero(scores >= MIN_SCORE)
    values = boxes[which].reshape(-1, 6, 2) / SIZE  # centre, size, points
    centres, sizes = values[:, 0] + anchors()[which], values[:, 1]
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return Detections(corners, values[:, 2:] + anchors()[which, None], scores[which])


def suppress(found: Detections) -> Detections:
    """Of detections that overlap more than MAX_OVERLAP, only the surest; the surest first."""
    return found[suppressed(found.boxes, found.scores, MAX_OVERLAP)]


def suppressed(boxes: np.ndarray, scores: np.ndarray, max_overlap: float) -> np.ndarray:
    """Which of D boxes remain where of those that overlap more only the surest does; the surest
    first. boxes: (D, 4). scores: (D,)."""
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while len(rest):
        kept.append(rest[0])
        shares = _overlaps(boxes[rest[0]], boxes[rest])
        rest = rest[1:][shares[1:] <= max_overlap]
    return np.array(kept, dtype=int)


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of (4,) with each of (D, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    total = np.prod(box[2:] - box[:2]) + areas - common
    return common / np.maximum(total, np.finfo(np.float32).tiny)
