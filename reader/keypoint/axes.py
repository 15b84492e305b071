"""The order of the axes of an array: persons M, frames T, joints V, coordinates C.

Arrays are (M, T, V, C) or (T, V, C) unless the configuration says otherwise. Which other order an
array seems to have follows from the number of joints of the layout, from the number of coordinates
of the unit, and from there being fewer persons than frames. Where sizes fit two orders, values may
still tell them apart; without clear evidence, the array is taken as it is read.
"""

from __future__ import annotations

import itertools

import numpy as np

from reader.clip import Unusable
from reader.keypoint.types import Raw, Wanted

ORDER = "MTVC"
# Correlation over the joints, e.g. of the heights of two persons, who both have the head above the
# feet; and of two coordinates of one person.
_ALIKE, _DIFFERENT = 0.8, 0.6
_STEP = 0.5  # change from frame to frame, as a fraction of the difference between persons


def in_order(array: np.ndarray, axes: str) -> np.ndarray:
    """The array as (M, T, V, C) or (T, V, C). axes: the letter of each axis; M is ignored if the
    array has three. A table (T, n) is returned as it is. Raises Unusable."""
    letters = axes.replace("M", "") if array.ndim == 3 else axes
    if array.ndim == 2 or not axes:
        return array
    if array.ndim != len(letters):
        raise Unusable(f"an array of shape {array.shape}, whose axes cannot be {axes}")
    return array.transpose([letters.index(letter) for letter in ORDER if letter in letters])


def score_in_order(score: np.ndarray, axes: str) -> np.ndarray:
    """The scores as (M, T, V), from the axes of the keypoints without C."""
    letters = axes.replace("C", "")
    if score.ndim != len(letters):
        return score
    score = score.transpose([letters.index(letter) for letter in ORDER if letter in letters])
    return score if "M" in letters else score[None]


def likely_axes(raw: Raw, wanted: Wanted) -> tuple[list[str], bool]:
    """(other orders that the axes seem to have, the likeliest first; whether their sizes exclude
    the order in which they are read). Without any order, they are as read."""
    array = raw.arrays[0]
    if wanted.axes or array.ndim not in (3, 4) or array.dtype.kind not in "iuf":
        return [], False
    usual = ORDER[-array.ndim :]
    fitting = _fitting(array.shape, (3, 4) if wanted.is_3d else (2, 3, 4), wanted)
    if raw.score is not None and raw.score.shape == array.shape[:-1]:
        fitting = [axes for axes in fitting if axes[-1] == "C"]
    likely = [axes for axes in fitting if _has_more_frames(array.shape, axes)]
    if usual in fitting and usual not in likely:
        likely = _decided(array, [axes for axes in likely if axes.index("V") == 2])
        return [axes for axes in likely if _is_time(array, axes, wanted)], False
    if usual in fitting:
        swapped = _with_swapped(usual)
        is_wrong = swapped in likely and _coordinates(array, usual) == swapped
        return ([swapped] if is_wrong else []), False
    # Perhaps in the usual order, with two coordinates where the unit needs three.
    has_two = usual in _fitting(array.shape, (2,), wanted) and _has_more_frames(array.shape, usual)
    if has_two and (array.ndim == 3 or _coordinates(array, usual) == usual):
        return [], False
    return _decided(array, likely), True


def _fitting(shape: tuple[int, ...], num_axis: tuple[int, ...], wanted: Wanted) -> list[str]:
    """The orders in which V and C have possible sizes."""
    num_joint = wanted.spec.skeleton.num_joint
    orders = ("".join(axes) for axes in itertools.permutations(ORDER[-len(shape) :]))
    return [
        axes
        for axes in orders
        if shape[axes.index("V")] == num_joint and shape[axes.index("C")] in num_axis
    ]


def _has_more_frames(shape: tuple[int, ...], axes: str) -> bool:
    return "M" not in axes or shape[axes.index("M")] <= shape[axes.index("T")]


def _with_swapped(axes: str) -> str:
    """The order with C and M exchanged."""
    return axes.translate(str.maketrans("CM", "MC"))


def _decided(array: np.ndarray, orders: list[str]) -> list[str]:
    """Without those that differ from another one in C and M, where values decide for that one."""
    kept = []
    for axes in orders:
        rival = _with_swapped(axes)
        if rival == axes or rival not in orders or _coordinates(array, axes) != rival:
            kept.append(axes)
    return kept


def _is_time(array: np.ndarray, axes: str, wanted: Wanted) -> bool:
    """Whether a step along T is small against one along M, or, of a single person, against the
    size of the body."""
    people = in_order(array, axes)[..., : 3 if wanted.is_3d else 2]  # M, T, V, C without scores
    if people.shape[1] < 2:
        return False
    step = float(np.abs(np.diff(people, axis=1)).mean())
    other = np.abs(np.diff(people, axis=0)) if len(people) > 1 else people.std(axis=2)
    return step < _STEP * float(other.mean())


def _coordinates(array: np.ndarray, axes: str) -> str:
    """The given order, or that with C and M exchanged, if values decide; else ''.

    A missing joint, or an empty person slot, is 0 in all coordinates, not in one of them. Without
    any, the heights of persons are alike over the joints, and the coordinates of a person are not.
    """
    people = in_order(array, axes).astype(np.float64)
    if "M" not in axes or len(people) < 2 or not np.isfinite(people).all():
        return ""
    swapped = people.transpose(3, 1, 2, 0)
    partly, partly_swapped = _partly_zero(people), _partly_zero(swapped)
    if max(partly, partly_swapped) > 0.01:
        if partly < partly_swapped / 4:
            return axes
        return _with_swapped(axes) if partly_swapped < partly / 4 else ""
    alike, alike_swapped = _alike(people), _alike(swapped)
    if alike > _ALIKE and alike_swapped < _DIFFERENT:
        return axes
    return _with_swapped(axes) if alike_swapped > _ALIKE and alike < _DIFFERENT else ""


def _partly_zero(people: np.ndarray) -> float:
    """Fraction of joints with a coordinate that is 0 and another that is not."""
    zero = people == 0
    return float((zero.any(axis=3) & ~zero.all(axis=3)).mean())


def _alike(people: np.ndarray) -> float:
    """Correlation, over the joints, of neighbouring persons: its mean over frames, of the
    coordinate in which it is largest."""
    centred = people - people.mean(axis=2, keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=2, keepdims=True))
    profile = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-9)
    return float((profile[1:] * profile[:-1]).sum(axis=2).mean(axis=(0, 1)).max())
