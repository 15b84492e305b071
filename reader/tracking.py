"""Identity of persons over frames: a tracker, and the repair of recordings whose persons change
their order.

Persons are matched by object keypoint similarity (OKS, as in the COCO keypoint evaluation) with the
positions that a constant velocity predicts, in the assignment with the largest sum. In place of the
areas and the constants of single joints of COCO, the scale is a share of the person's own extent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataset.padding import joint_exists
from reader.shared import energy

MAX_GAP, MIN_SIMILARITY = 30, 0.1
# Standard deviation of a joint around its prediction, as a share of the person's extent (diagonal
# of the bounding box); with every frame without the person it grows by this share of itself.
SPREAD, GROWTH = 0.1, 0.1
GAIN = 0.3  # weight of the newest step in the velocity
# Similarity that another order of a recording must gain for each person, so that contact, where
# the skeletons of two persons are nearly equal, does not change it.
STAY = 0.2
# How near, relative to its own last place, a person must be to another one's for a recording to be
# tracked at all.
NEARER = 0.5
LEAST = 1e-30  # variance, for a person whose joints are all in one point


class Tracker:
    """Gives each person the same identity in every frame: integers from 0, never used twice. A
    person may be absent for MAX_GAP frames and return."""

    def __init__(self) -> None:
        self._tracks: dict[int, _Track] = {}  # by identity
        self._num_identity = 0

    def update(self, people: list[np.ndarray]) -> list[int]:
        """The identity of each person of the next frame, in the order of `people`.

        people: (V, D) each, in any unit, D = 2 or 3; a joint that is NaN, or 0 in all coordinates,
        is missing. A person without any joint gets a new identity. Raises ValueError for arrays of
        other shapes, or of another one than before.
        """
        persons = self._checked(people)
        for track in self._tracks.values():
            track.gap += 1
        self._tracks = {n: t for n, t in self._tracks.items() if t.gap <= MAX_GAP + 1}
        found = self._predicted(persons)
        identities = []
        for n, person in enumerate(persons):
            if n in found:
                self._tracks[found[n]].observe(person)
            else:
                found[n] = self._num_identity
                self._num_identity += 1
                if _has_joint(person):
                    self._tracks[found[n]] = _Track(person)
            identities.append(found[n])
        return identities

    def _predicted(self, persons: Sequence[np.ndarray]) -> dict[int, int]:
        """Number of a person -> identity of its track, where they are similar enough."""
        if not self._tracks or not persons:
            return {}
        similarity = _similarity(list(self._tracks.values()), persons)
        allowed = similarity >= MIN_SIMILARITY
        names = list(self._tracks)
        pairs = _best_pairs(np.where(allowed, similarity, 0))
        return {person: names[track] for track, person in pairs if allowed[track, person]}

    def _checked(self, people: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float64 copies in which missing joints are NaN."""
        persons = [np.array(person, np.float64) for person in people]
        shapes = {person.shape for person in persons}
        shapes |= {track.joints.shape for track in self._tracks.values()}
        if len(shapes) > 1 or any(len(s) != 2 or s[1] not in (2, 3) for s in shapes):
            raise ValueError(f"persons of shapes {sorted(shapes)}; must be one (V, 2) or (V, 3)")
        for person in persons:
            person[np.isnan(person).any(axis=1) | ~person.any(axis=1)] = np.nan
        return persons


class _Track:
    """joints: where a person was last seen, (V, D); those that were missing then are moved along,
    NaN before they are first seen. gap: frames since then."""

    def __init__(self, person: np.ndarray) -> None:
        self.joints = person
        self.gap = 0
        self._velocity = np.zeros(person.shape[1])  # per frame, of the body as a whole
        self._num_step = 0

    @property
    def predicted(self) -> np.ndarray:
        """The joints `gap` frames later, (V, D)."""
        return self.joints + self._velocity * self.gap

    @property
    def variance(self) -> float:
        """That of a joint around its prediction, in squared units."""
        extent = np.nanmax(self.joints, axis=0) - np.nanmin(self.joints, axis=0)
        spread = SPREAD * (1 + GROWTH * (self.gap - 1))
        return max(float(extent @ extent) * spread**2, LEAST)

    def observe(self, person: np.ndarray) -> None:
        """The person is seen again, `gap` frames later."""
        predicted, is_seen = self.predicted, ~np.isnan(person)
        step = (person - self.joints)[~np.isnan(person - self.joints).any(axis=1)]
        if len(step):
            self._num_step += 1
            gain = max(GAIN, 1 / self._num_step)  # the mean of the first steps
            self._velocity += gain * (step.mean(axis=0) / self.gap - self._velocity)
        self.joints = np.where(is_seen, person, predicted)
        self.gap = 0


def _has_joint(person: np.ndarray) -> bool:
    return not bool(np.isnan(person).all())


def _similarity(tracks: Sequence[_Track], persons: Sequence[np.ndarray]) -> np.ndarray:
    """(tracks, persons) OKS of the predictions with the persons over their common joints, 0 without
    any."""
    predicted = np.stack([track.predicted for track in tracks])[:, None]  # tracks, 1, V, D
    variance = np.array([track.variance for track in tracks])[:, None, None]
    squared = ((predicted - np.stack(persons)) ** 2).sum(axis=3) / variance  # tracks, persons, V
    is_common = ~np.isnan(squared)
    similarity = np.where(is_common, np.exp(-squared / 2), 0).sum(axis=2)
    return similarity / np.maximum(is_common.sum(axis=2), 1)


def _best_pairs(score: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (row, column) with the largest sum of scores, each row and column once."""
    from scipy.optimize import linear_sum_assignment  # here: most recordings need no tracking

    rows, columns = linear_sum_assignment(score, maximize=True)
    return list(zip(rows.tolist(), columns.tolist()))


def reordered(clip: np.ndarray, num_axis: int = 3) -> tuple[np.ndarray, int]:
    """A recording whose persons keep their places, and the number of frames in which a person has
    another place than when it was last seen.

    clip: (C, T, V, M) as the readers make it, zeros where a joint or a person is missing.
    num_axis: channels that are coordinates. Without such frames the clip itself is returned;
    otherwise a new array, persons sorted by motion energy, highest first, as the NTU reader does.
    A person whom nobody precedes keeps its place if that is free.
    """
    exists = joint_exists(clip)  # T, V, M
    used = np.flatnonzero(exists.any(axis=(0, 1)))
    if len(used) < 2:
        return clip, 0
    people = np.where(exists, clip[:num_axis], np.nan)[..., used].transpose(
        3, 1, 2, 0
    )  # M, T, V, D
    people = people.astype(np.float64)
    if not _may_change(people):
        return clip, 0
    order, swaps = _order(people)
    if swaps == 0:
        return clip, 0
    repaired = clip.copy()
    repaired[..., used] = np.take_along_axis(clip[..., used], order[None, :, None, :], axis=3)
    energies = [energy(body) for body in repaired[:num_axis].transpose(3, 1, 2, 0)]
    return repaired[..., np.argsort(-np.array(energies), kind="stable")], swaps


def _may_change(people: np.ndarray) -> bool:
    """Whether in any frame a person (M, T, V, D) is much nearer to where another one was last seen
    than both are to where they were last seen themselves. NumPy only: most recordings need no
    tracking."""
    num_person, num_frame = people.shape[:2]
    is_there = ~np.isnan(people).all(axis=(2, 3))  # M, T
    frames = np.where(is_there, np.arange(num_frame), -1)
    last = np.maximum.accumulate(frames, axis=1)[:, :-1]  # M, T - 1: before each later frame
    distance = np.full((num_person, num_person, num_frame - 1), np.inf)  # [was, is, frame]
    for m in range(num_person):
        squared = ((people[:, 1:] - people[m, last[m]]) ** 2).sum(axis=3)  # M, T - 1, V
        is_common = ~np.isnan(squared)
        count = is_common.sum(axis=2)
        mean = np.where(is_common, squared, 0).sum(axis=2) / np.maximum(count, 1)
        distance[m] = np.where((count > 0) & (last[m] >= 0), mean, np.inf)
    own = np.einsum("mmt->mt", distance)
    nearer = distance < NEARER**2 * np.minimum(own[:, None], own)
    return bool(nearer.any())


def _order(people: np.ndarray) -> tuple[np.ndarray, int]:
    """The place of each person in each frame, (T, M), and the number of frames in which a person
    changes its place. people: (M, T, V, D), NaN where a joint is missing."""
    num_person, num_frame = people.shape[:2]
    order = np.tile(np.arange(num_person), (num_frame, 1))
    tracks: dict[int, _Track] = {}  # by person
    last = list(range(num_person))  # the place where each person was last seen
    swaps = 0
    for t in range(num_frame):
        for track in tracks.values():
            track.gap += 1
        found = _persons(tracks, last, people[:, t])
        swaps += any(last[person] != place for place, person in found.items())
        for place, person in found.items():
            last[person] = place
            if person in tracks:
                tracks[person].observe(people[place, t])
            else:
                tracks[person] = _Track(people[place, t])
        absent = [person for person in range(num_person) if person not in found.values()]
        empty = [place for place in range(num_person) if place not in found]
        order[t, [*found.values(), *absent]] = [*found, *empty]
    return order, swaps


def _persons(tracks: dict[int, _Track], last: Sequence[int], people: np.ndarray) -> dict[int, int]:
    """Place -> person of those in one frame (M, V, D). Removes the tracks of persons that are
    replaced by another one."""
    places = [place for place, joints in enumerate(people) if _has_joint(joints)]
    recent = {person: t for person, t in tracks.items() if t.gap <= MAX_GAP + 1}
    found: dict[int, int] = {}
    if recent and places:
        similarity = _similarity(list(recent.values()), [people[place] for place in places])
        allowed = similarity >= MIN_SIMILARITY
        stays = np.array([last[person] for person in recent])[:, None] == places
        pairs = _best_pairs(np.where(allowed, similarity + STAY * stays, 0))
        persons = list(recent)
        found = {places[n]: persons[row] for row, n in pairs if allowed[row, n]}
    for place in places:
        if place not in found:
            free = [person for person in range(len(last)) if person not in found.values()]
            found[place] = next((person for person in free if last[person] == place), free[0])
            tracks.pop(found[place], None)
    return found
