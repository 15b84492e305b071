"""Video -> the poses of several people. Each is followed by the landmarks of the frame before; a
detector looks for new ones now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from apps.video.detector import Detector
from apps.video.landmarks import Landmarker, Landmarks
from apps.video.layouts import MEDIAPIPE
from apps.video.region import Region, overlap, steady
from apps.video.weights import pose_weights

EVERY = 3  # frames from one run of the detector to the next
MIN_PRESENCE = 0.5
MIN_SIDE = 8.0  # pixels of a person's square
MAX_OVERLAP = 0.5  # of the square of a new person with one that is followed
SAME_OVERLAP, SAME_DISTANCE = 0.6, 0.05  # squares and landmarks (in sides) of the same person


@dataclass(frozen=True)
class Person:
    """image: (J, 3) float32, x and y in pixels, visibility in 0..1. world: (J, 3) float32, metres
    from the middle of the hips, x to the right of the image, y down, z away from the camera; None
    of a network that knows only the image. presence: in 0..1."""

    image: np.ndarray
    world: np.ndarray | None
    presence: float


class Finder(Protocol):
    """Finds people in one image."""

    def find(self, image: np.ndarray, thorough: bool) -> list[Region]: ...


class PoseEstimator:
    """Poses in images that follow each other. Not thread-safe."""

    layout = MEDIAPIPE

    def __init__(
        self, finder: Finder, landmarker: Landmarker, most_persons: int, every: int = EVERY
    ) -> None:
        """every: frames from one run of the finder to the next; it also runs where nobody is
        followed."""
        self._finder, self._landmarker = finder, landmarker
        self._most_persons, self._every = most_persons, every
        self.reset()

    @classmethod
    def load(
        cls, num_thread: int, most_persons: int, finder: Finder | None = None
    ) -> PoseEstimator:
        """With MediaPipe's networks, fetched on first use. finder: in place of its detector. Raises
        UserError where that fails."""
        files = pose_weights()
        finder = finder or Detector(files.detector, num_thread, tiles=most_persons > 1)
        return cls(finder, Landmarker(files.landmarks, num_thread), most_persons)

    def reset(self) -> None:
        """Forget everybody: the next image is of another video."""
        self._regions: list[Region] = []  # of the people in the last image
        self._count = 0  # images

    def estimate(self, image: np.ndarray) -> list[Person]:
        """The people in the next image, (H, W, 3) uint8, RGB, of any size; those who have been
        followed for longest come first."""
        people = self._landmarks(image, self._regions)
        is_due = self._count % self._every == 0 or not people
        if is_due and len(people) < self._most_persons:
            new = self._finder.find(image, thorough=self._count == 0)
            unknown = [r for r in new if all(overlap(r, p.region) < MAX_OVERLAP for p in people)]
            people = _different(people + self._landmarks(image, unknown))[: self._most_persons]
        self._count += 1
        self._regions = [steady(person.seen, person.region) for person in people]
        return [_person(person) for person in people]

    def _landmarks(self, image: np.ndarray, regions: list[Region]) -> list[Landmarks]:
        """Of those people who are there, each once."""
        found = [self._landmarker.find(image, region) for region in regions]
        return _different([person for person in found if _is_there(person)])


def _is_there(person: Landmarks) -> bool:
    if not (np.isfinite(person.image).all() and np.isfinite(person.world).all()):
        return False
    return person.presence >= MIN_PRESENCE and person.region.side >= MIN_SIDE


def _different(people: list[Landmarks]) -> list[Landmarks]:
    """Without those who are the same person as one before."""
    kept: list[Landmarks] = []
    for person in people:
        if not any(_is_same(person, other) for other in kept):
            kept.append(person)
    return kept


def _is_same(a: Landmarks, b: Landmarks) -> bool:
    if overlap(a.region, b.region) < SAME_OVERLAP:
        return False
    distance = np.linalg.norm(a.image[:, :2] - b.image[:, :2], axis=1).mean()
    return bool(distance < SAME_DISTANCE * max(a.region.side, b.region.side))


def _person(found: Landmarks) -> Person:
    image = np.concatenate([found.image[:, :2], found.visibility[:, None]], axis=1)
    return Person(image.astype(np.float32), found.world.astype(np.float32), found.presence)
