"""Arrays of keypoints, in the units and shapes that people store them in -> one clip.

Allowed shapes are (M, T, V, C), (T, V, C) and (T, V*C). In three dimensions (units metre and
millimetre) C is 3: x, y, z. In two (pixel, normalised) it is 2, or 3 with the score.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from reader.clip import BadRecording, Clip
from reader.keypoint.types import Facts, Raw, Wanted
from reader.shared import energy

# Larger ones are no coordinates in any unit, and their squares would overflow float32.
MAX_COORDINATE = 1e6


def facts_of(raw: Raw, wanted: Wanted, where: str) -> Facts:
    """Raises BadRecording for arrays that are no keypoints in any layout."""
    people = _people(raw, wanted, where)
    m, t, v, c = people.shape
    fits = v == wanted.spec.skeleton.num_joint
    is_known = fits or raw.arrays[0].ndim > 2
    facts = Facts(
        num_value=v * c,
        num_person=m,
        num_frame=t,
        num_axis=c if is_known else 0,
        num_joint=v if is_known else 0,
        fits=fits,
        sha=hashlib.sha256(np.ascontiguousarray(people).data).hexdigest(),
        said_frames=raw.num_frame,
        image_size=raw.image_size or wanted.image_size,
        unusable=int((~(np.abs(people) <= MAX_COORDINATE)).sum()),  # written so that NaN counts
    )
    if not fits or facts.unusable:
        return facts
    there = _there(people, _score(raw, people, wanted, where), wanted)  # M, T, V
    bodies = there.any(axis=2)  # M, T
    seen = people[there]
    return replace(
        facts,
        num_person=int(bodies.any(axis=1).sum()),
        body_frames=int(bodies.sum()),
        missing=(bodies[:, :, None] & ~there).sum(axis=(0, 1)),
        low=seen.min(axis=0) if len(seen) else None,
        high=seen.max(axis=0) if len(seen) else None,
        extent=_extent(people[bodies], there[bodies], 3 if wanted.is_3d else 2),
    )


def clip_of(raw: Raw, wanted: Wanted, where: str) -> Clip:
    """The clip: channels (x, y, z) in metres, or (x - 0.5, y - 0.5, score) in shares of the
    picture, score 1 where none is given.

    A joint is missing, and zero in every channel, where its score is 0 or its coordinates all
    are. Persons are sorted by the sum of their scores (two dimensions) or by how widely they move
    (three dimensions, `energy`), highest first, equal ones as they are stored, and the
    first `num_person` kept. Raises BadRecording.
    """
    spec = wanted.spec
    people = _people(raw, wanted, where)
    m, t, v, c = people.shape
    if v != spec.skeleton.num_joint:
        layout = f"{spec.skeleton.name} has {spec.skeleton.num_joint} joints"
        raise BadRecording(where, f"{v * c} numbers a person and frame; {layout}")
    if not np.abs(people).max(initial=0) <= MAX_COORDINATE:  # written so that NaN fails it
        raise BadRecording(where, f"coordinates that are no number, or beyond {MAX_COORDINATE:g}")
    score = _score(raw, people, wanted, where)
    there = _there(people, score, wanted)
    stored = np.where(there[..., None], _in_unit(raw, people, score, wanted, where), 0)
    stored = stored.astype(np.float32)
    exists = there.any(axis=(1, 2))
    rank = [energy(body) if wanted.is_3d else body[..., 2].sum() for body in stored]
    best = np.argsort(-np.array(rank), kind="stable")[: spec.num_person]
    length = min(t, spec.max_frame)
    positions = np.zeros((3, length, v, spec.num_person), np.float32)
    positions[..., : len(best)] = stored[best, :length].transpose(3, 1, 2, 0)
    return Clip(
        positions=positions,
        length=length,
        is_cut=t > spec.max_frame,
        has_extra_body=int(exists.sum()) > spec.num_person,
        empty_frames=length - int(positions.any(axis=(0, 2, 3)).sum()),
    )


def _people(raw: Raw, wanted: Wanted, where: str) -> np.ndarray:
    """The arrays as one (M, T, V, C) float64."""
    num_joint = wanted.spec.skeleton.num_joint
    people = [_with_persons(array, num_joint, where) for array in raw.arrays]
    shapes = [array.shape[1:] for array in people]
    if len(set(shapes)) > 1:
        raise BadRecording(where, f"its persons have arrays (T, V, C) of {shapes}; must be equal")
    return np.concatenate(people)


def _with_persons(array: np.ndarray, num_joint: int, where: str) -> np.ndarray:
    """(M, T, V, C) float64. A table whose columns do not fit the layout is taken for so many
    joints of one number."""
    if array.dtype.kind not in "iuf":
        raise BadRecording(where, f"an array of {array.dtype}; must be numbers")
    shape = array.shape
    if len(shape) == 2:
        num_axis = next((c for c in (2, 3) if shape[1] == c * num_joint), 1)
        array = array.reshape(1, shape[0], shape[1] // num_axis, num_axis)
    elif len(shape) == 3:
        array = array[None]
    is_known = array.ndim == 4 and (len(shape) == 2 or shape[-1] in (2, 3))
    if not is_known or 0 in array.shape:
        raise BadRecording(
            where,
            f"an array of shape {shape}; must be (M persons, T frames, V joints, C = 2 or 3), "
            "(T, V, C) or (T, V*C), none of them 0",
        )
    return array.astype(np.float64)


def _score(raw: Raw, people: np.ndarray, wanted: Wanted, where: str) -> np.ndarray | None:
    """(M, T, V) scores of two-dimensional data; of three-dimensional ones where they are given."""
    if raw.score is not None:
        if raw.score.dtype.kind not in "iuf" or raw.score.shape != people.shape[:3]:
            raise BadRecording(
                where,
                f"keypoint_score is {raw.score.dtype} {raw.score.shape}; must be numbers "
                f"{people.shape[:3]}, as keypoint is {people.shape}",
            )
        return np.nan_to_num(raw.score.astype(np.float64))
    if wanted.is_3d:
        return None
    return people[..., 2] if people.shape[3] == 3 else np.ones(people.shape[:3])


def _there(people: np.ndarray, score: np.ndarray | None, wanted: Wanted) -> np.ndarray:
    """Which joints (M, T, V) were seen."""
    there = people[..., : 3 if wanted.is_3d else 2].any(axis=3)
    return there if score is None else there & (score > 0)


def _in_unit(
    raw: Raw, people: np.ndarray, score: np.ndarray | None, wanted: Wanted, where: str
) -> np.ndarray:
    """(M, T, V, 3) in the units of data on disk."""
    if wanted.is_3d:
        if people.shape[3] != 3:
            raise BadRecording(where, f"2 coordinates a joint; unit {wanted.unit} needs x, y, z")
        return people / 1000 if wanted.unit == "millimetre" else people
    size = (1.0, 1.0)
    if wanted.unit == "pixel":
        known = raw.image_size or wanted.image_size
        if known is None:
            raise BadRecording(where, "its picture's size is not known, and unit is pixel")
        size = known
    return np.concatenate([people[..., :2] / size - 0.5, score[..., None]], axis=3)


def _extent(bodies: np.ndarray, there: np.ndarray, num_axis: int) -> float:
    """Median over bodies (B, V, C) of the longest side of the box around what is there (B, V)."""
    if not len(bodies):
        return 0.0
    absent = ~there[..., None]
    bodies = bodies[..., :num_axis]
    top = np.where(absent, -np.inf, bodies).max(axis=1)
    bottom = np.where(absent, np.inf, bodies).min(axis=1)
    return float(np.median((top - bottom).max(axis=1)))
