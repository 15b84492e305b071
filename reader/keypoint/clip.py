"""Arrays of keypoints, in common units and shapes -> one clip.

Allowed shapes are (M, T, V, C), (T, V, C) and (T, V*C). In three dimensions (units metre and
millimetre) C is 3: x, y, z. In two (pixel, normalised) it is 2, or 3 with the score. In both, it
may be 4: x, y, z and the score (MediaPipe: visibility); in two dimensions z is not used. Axes in
another order are transposed first, if the configuration gives that order (`Wanted.axes`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from reader.clip import Clip, Unusable
from reader.keypoint.axes import in_order, likely_axes, score_in_order
from reader.keypoint.types import Facts, Raw, Wanted
from reader.shared import energy
from reader.tracking import reordered

# Larger values are not coordinates in any unit, and their squares would overflow float32.
MAX_COORDINATE = 1e6
MAX_SCORE = 1.5  # OpenPose confidences slightly exceed 1


def facts_of(raw: Raw, wanted: Wanted) -> Facts:
    """The facts of one clip for the data check. Raises Unusable for arrays that are not
    keypoints in any layout."""
    axes, is_excluded = likely_axes(raw, wanted)
    is_misread = bool(axes) and is_excluded
    people = _people(raw, replace(wanted, axes=axes[0]) if is_misread else wanted)
    m, t, v, c = people.shape
    fits = v == wanted.spec.skeleton.num_joint and c > 1 and not is_misread
    is_known = fits or raw.arrays[0].ndim > 2
    facts = Facts(
        num_value=v * c,
        num_person=m,
        num_frame=t,
        num_axis=min(c, 3 if fits else c) if is_known else 0,
        num_joint=v if is_known else 0,
        fits=fits,
        sha=hashlib.sha256(np.ascontiguousarray(people).data).hexdigest(),
        total_frames=raw.total_frames,
        image_size=raw.image_size or wanted.image_size,
        unusable=int((~(np.abs(people) <= MAX_COORDINATE)).sum()),  # in this form NaN counts
        notes=raw.notes,
        shape=raw.arrays[0].shape,
        axes=tuple(axes),
    )
    if not fits or facts.unusable:
        return facts
    people, score = _with_score(raw, people, wanted)
    detected = _detected(people, score, wanted)  # M, T, V
    if not detected.any():
        return replace(facts, num_person=0)
    bodies = np.any(detected, axis=2)  # M, T
    joints = people[detected]
    num_space = 3 if wanted.is_3d else 2
    return replace(
        facts,
        num_person=int(bodies.any(axis=1).sum()),
        body_frames=int(bodies.sum()),
        missing=(bodies[:, :, None] & ~detected).sum(axis=(0, 1)),
        low=joints.min(axis=0),
        high=joints.max(axis=0),
        extent=_extent(people[bodies], detected[bodies], num_space),
        pose=_pose(people[..., :num_space], detected),
        empty_frames=t - int(bodies.any(axis=0).sum()),
        is_frozen=t > 1 and bool((people == people[:, :1]).all()),
    )


def clip_of(raw: Raw, wanted: Wanted) -> Clip:
    """The clip: channels (x, y, z) in metres, or (x - 0.5, y - 0.5, score) with x, y relative to
    the image size and score 1 if none is given.

    A joint is missing, and zero in every channel, if its score or all of its coordinates are 0.
    Persons are sorted by the sum of their scores (two dimensions) or by motion energy (three
    dimensions, `energy`), highest first, ties in stored order, and the first `num_person` kept;
    before that, persons who change their place are put in order if `repair_order` asks for it.
    Raises Unusable.
    """
    spec = wanted.spec
    people = _people(raw, wanted)
    m, t, v, c = people.shape
    if v != spec.skeleton.num_joint or c == 1:
        layout = f"{spec.skeleton.name} has {spec.skeleton.num_joint} joints"
        raise Unusable(f"{v * c} values per person and frame; {layout}")
    if not np.abs(people).max(initial=0) <= MAX_COORDINATE:  # in this form NaN fails
        raise Unusable(f"coordinates that are NaN or beyond {MAX_COORDINATE:g}")
    people, score = _with_score(raw, people, wanted)
    detected = _detected(people, score, wanted)
    stored = np.where(detected[..., None], _in_unit(raw, people, score, wanted), 0)
    stored = stored.astype(np.float32)
    tracked, swaps = reordered(stored.transpose(3, 1, 2, 0), 3 if wanted.is_3d else 2)
    if wanted.repair_order and swaps:
        stored = np.ascontiguousarray(tracked.transpose(3, 1, 2, 0))
    exists = stored.any(axis=(1, 2, 3))
    rank = [energy(body) if wanted.is_3d else body[..., 2].sum() for body in stored]
    best = np.argsort(-np.array(rank), kind="stable")[: spec.num_person]
    length = min(t, spec.max_frame)
    positions = np.zeros((3, length, v, spec.num_person), np.float32)
    positions[..., : len(best)] = stored[best, :length].transpose(3, 1, 2, 0)
    is_truncated, has_extra_body = t > spec.max_frame, int(exists.sum()) > spec.num_person
    empty_frames = length - int(positions.any(axis=(0, 2, 3)).sum())
    return Clip(positions, length, is_truncated, has_extra_body, empty_frames, swaps=swaps)


def _people(raw: Raw, wanted: Wanted) -> np.ndarray:
    """The arrays as one (M, T, V, C) float64, with y as the vertical axis."""
    people = [_with_persons(array, wanted) for array in raw.arrays]
    shapes = [array.shape[1:] for array in people]
    if len(set(shapes)) > 1:
        raise Unusable(f"arrays (T, V, C) of its persons are {shapes}; must be equal")
    stacked = np.concatenate(people)
    if wanted.up == "z" and stacked.shape[3] >= 3:
        x, y, z, *score = np.moveaxis(stacked, 3, 0)
        return np.stack([x, z, -y, *score], axis=3)  # a rotation about x, no mirror image
    return stacked


def _with_persons(array: np.ndarray, wanted: Wanted) -> np.ndarray:
    """(M, T, V, C) float64; joints with masked values are 0. A table whose columns do not fit the
    layout gets one joint per column, with C = 1."""
    if array.dtype.kind not in "iuf":
        raise Unusable(f"an array of {array.dtype}; must be numbers")
    array = in_order(array, wanted.axes)
    shape = array.shape
    if len(shape) == 2:
        num_axis = _num_axis(array, wanted)
        array = array.reshape(1, shape[0], shape[1] // num_axis, num_axis)
    elif len(shape) == 3:
        array = array[None]
    is_known = array.ndim == 4 and (len(shape) == 2 or shape[-1] in (2, 3, 4))
    if not is_known or 0 in array.shape:
        raise Unusable(
            f"an array of shape {shape}; must be (M persons, T frames, V joints, C = 2, 3 or 4), "
            "(T, V, C) or (T, V*C), without axes of length 0",
        )
    if isinstance(array, np.ma.MaskedArray):
        absent = np.ma.getmaskarray(array).any(axis=3, keepdims=True)
        array = np.where(absent, 0, np.ma.getdata(array))
    with np.errstate(over="ignore", invalid="ignore"):  # the values are checked later
        return array.astype(np.float64)


def _num_axis(table: np.ndarray, wanted: Wanted) -> int:
    """Values per joint of a table (T, n); 1 if n does not fit the layout.

    In images, four per joint may also be x and y of two persons, all joints of one before those of
    the other. They are x, y, z and the score if z has both signs, as MediaPipe's has, and the
    fourth values are scores.
    """
    num_joint, num_column = wanted.spec.skeleton.num_joint, table.shape[1]
    if num_column != 4 * num_joint:
        return next((c for c in (2, 3) if num_column == c * num_joint), 1)
    depth, score = table[:, 2::4], table[:, 3::4]
    has_depth = depth.min() < 0 < depth.max() and score.min() >= 0 and score.max() <= MAX_SCORE
    return 4 if wanted.is_3d or has_depth else 1


def _with_score(raw: Raw, people: np.ndarray, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """(M, T, V, C=2 or 3) values, as documented above for C up to 3, and (M, T, V) scores, which
    are 1 if none are given."""
    score = np.ones(people.shape[:3])
    if people.shape[3] == 4:
        score = people[..., 3]
        if not (score.min() >= 0 and score.max() <= MAX_SCORE):
            raise Unusable(
                f"4 values per joint, but the fourth range from {score.min():.4g} to "
                f"{score.max():.4g}; must be scores (visibility) from 0 to 1"
            )
        people = people[..., :3] if wanted.is_3d else people[..., [0, 1, 3]]
    elif people.shape[3] == 3 and not wanted.is_3d:
        score = people[..., 2]
    if raw.score is not None:
        given = score_in_order(raw.score, wanted.axes)
        if given.dtype.kind not in "iuf" or given.shape != people.shape[:3]:
            raise Unusable(
                f"keypoint_score is {given.dtype} {given.shape}; must be numbers "
                f"{people.shape[:3]}, as keypoint is {people.shape}",
            )
        score = np.nan_to_num(given.astype(np.float64))
    return people, score


def _detected(people: np.ndarray, score: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Which joints (M, T, V) were detected."""
    return people[..., : 3 if wanted.is_3d else 2].any(axis=3) & (score > 0)


def _in_unit(raw: Raw, people: np.ndarray, score: np.ndarray, wanted: Wanted) -> np.ndarray:
    """(M, T, V, 3) in the units of data on disk."""
    if wanted.is_3d:
        if people.shape[3] != 3:
            raise Unusable(f"2 coordinates per joint; unit {wanted.unit} needs x, y, z")
        return people / 1000 if wanted.unit == "millimetre" else people
    size = (1.0, 1.0)
    if wanted.unit == "pixel":
        known = raw.image_size or wanted.image_size
        if known is None:
            raise Unusable("unknown image size, which unit pixel needs")
        size = known
    return np.concatenate([people[..., :2] / size - 0.5, score[..., None]], axis=3)


def _pose(people: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """`Facts.pose` of people (M, T, V, 2 or 3) whose joints (M, T, V) were detected."""
    counts = detected.sum(axis=2)  # M, T
    persons, frames = np.nonzero(counts == counts.max())
    best = np.abs(frames - people.shape[1] // 2).argmin()
    person, frame = persons[best], frames[best]
    pose = np.where(detected[person, frame][:, None], people[person, frame], np.nan)
    return pose.astype(np.float32)


def _extent(bodies: np.ndarray, detected: np.ndarray, num_axis: int) -> float:
    """Median over bodies (B, V, C) of the longest side of the bounding box of their detected
    joints (B, V)."""
    absent = ~detected[..., None]
    bodies = bodies[..., :num_axis]
    top = np.where(absent, -np.inf, bodies).max(axis=1)
    bottom = np.where(absent, np.inf, bodies).min(axis=1)
    return float(np.median((top - bottom).max(axis=1)))
