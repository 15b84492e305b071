"""Rules of the data check about the arrays: joints, persons, frames, units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from dataset.protocols import LIMITS
from dataset.skeletons import layout_names, skeleton
from reader.check.axes import misordered
from reader.check.types import Evidence, Problem, error, warning
from reader.keypoint.clip import MAX_COORDINATE, MAX_SCORE
from reader.keypoint.types import KEY, Facts, Wanted

# Longest side of the bounding box of a typical body. People measure 0.5 to 2 metres, even sitting
# or partly visible; the limits allow for children and raised arms.
MAX_METRES, MIN_METRES = 10.0, 0.02
MIN_BODY_MILLIMETRES = 300.0
FAR = 30.0  # metres; beyond the range of sensors and most halls
MAX_NORMALISED = 2.0  # normalised image coordinates are below, pixels above
MARGIN = 0.1  # of the image size; pose estimators may place joints slightly outside
_SET_PIXEL = f"set {KEY}unit=pixel {KEY}image_size=[WIDTH,HEIGHT]"
_SET_IMAGE_SIZE = f"set {KEY}image_size=[WIDTH,HEIGHT], or img_shape=(height, width), as recorded"


def unreadable(evidence: Evidence) -> Iterator[Problem]:
    """Clips without usable arrays."""
    bad = [f"{item.name}: {result.reason}" for item, result in evidence.bad()]
    what = f"{len(bad)} clips cannot be read"
    yield _skipped_or_error(evidence, what, "repair or remove them", bad)


def _skipped_or_error(evidence: Evidence, what: str, fix: str, clips: list[str]) -> Problem:
    """A problem of clips that can be skipped, unless no others remain."""
    if not evidence.sound():
        return error(what, fix, clips)
    if evidence.wanted.skip_bad:
        return warning(what, "none needed: they will be skipped", clips)
    return error(what, f"{fix}, or skip such clips: --set {KEY}on_bad_file=skip", clips)


def joints(evidence: Evidence) -> Iterator[Problem]:
    """A number of joints other than the layout's."""
    groups = defaultdict(list)
    for item, facts in evidence.read():
        if not facts.fits and not facts.axes:
            groups[facts.num_value, facts.num_joint, facts.num_axis].append(item.name)
    for (num_value, num_joint, num_axis), clips in groups.items():
        shapes = [(num_joint, num_axis)] if num_joint else _shapes(num_value, evidence.wanted)
        what, fix = _misfit(num_value, shapes, evidence.wanted)
        yield _skipped_or_error(evidence, what, fix, clips)


def _shapes(num_value: int, wanted: Wanted) -> list[tuple[int, int]]:
    """Possible (joints, values per joint) of a table's columns, the likeliest first."""
    axes = (3,) if wanted.is_3d else (2, 3)
    shapes = [(num_value // c, c) for c in axes if num_value % c == 0]
    known = {skeleton(name).num_joint for name in layout_names()}
    # With x, y, z and score. The layout's own number of joints was tried when reading.
    if num_value % 4 == 0 and num_value // 4 in known - {wanted.spec.skeleton.num_joint}:
        shapes.append((num_value // 4, 4))
    return sorted(shapes, key=lambda shape: shape[0] not in known)


def _misfit(num_value: int, shapes: list[tuple[int, int]], wanted: Wanted) -> tuple[str, str]:
    layout = wanted.spec.skeleton
    mine = f"skeleton is {layout.name} ({layout.num_joint} joints)"
    if not shapes:
        axes = "3 (x, y, z)" if wanted.is_3d else "2 (x, y) or 3 (x, y, score)"
        return (
            f"the clips have {num_value} values per frame, not a multiple of {axes}; {mine}",
            "store x, y and z, or x and y, of every joint and nothing else",
        )
    num_joint, num_axis = shapes[0]
    what = f"the clips have {num_value} values per frame = {num_joint} joints x {num_axis}; {mine}"
    fitting = [name for name in layout_names() if skeleton(name).num_joint == num_joint]
    if fitting:
        return what, f"set {KEY}skeleton={' or '.join(fitting)}"
    if num_value % (layout.num_joint * num_axis) == 0:
        number = num_value // (layout.num_joint * num_axis)
        return what, f"if each frame has {number} persons in one row, store them as (M, T, V, C)"
    return what, (
        f"no built-in layout has {num_joint} joints: describe yours in a YAML file (docs/data.md) "
        f"and set {KEY}skeleton=FILE.yaml"
    )


def unusable(evidence: Evidence) -> Iterator[Problem]:
    """NaN, infinity, and values too large for coordinates in any unit."""
    clips = [item.name for item, facts in evidence.read() if facts.unusable]
    what = f"{len(clips)} clips contain NaN, infinity or values beyond {MAX_COORDINATE:g}"
    yield _skipped_or_error(evidence, what, "write 0 for joints that were not detected", clips)


def empty(evidence: Evidence) -> Iterator[Problem]:
    """Clips without persons."""
    clips = [item.name for item, facts in evidence.sound() if not facts.body_frames]
    what = f"{len(clips)} clips contain no person: all of their joints are 0"
    yield warning(what, "remove them; otherwise they are kept", clips)


def sizes(evidence: Evidence) -> Iterator[Problem]:
    """Frames and persons beyond the limits; wrong total_frames."""
    spec = evidence.wanted.spec
    read = evidence.read()
    longest = max((facts.num_frame for _, facts in read), default=0)
    long = [item.name for item, facts in read if facts.num_frame > spec.max_frame]
    what = f"{len(long)} clips are longer than max_frame {spec.max_frame} and will be truncated"
    kept = min(longest, LIMITS[0])
    which = "all" if kept == longest else "the first"
    yield warning(what, f"set {KEY}max_frame={kept} to keep {which} frames", long)
    short = [item.name for item, facts in read if facts.num_frame == 1]
    what = f"{len(short)} clips have a single frame"
    yield warning(what, "check that their axes are (T, V, C), or remove them", short)
    wrong = [i.name for i, f in read if f.total_frames not in (None, f.num_frame)]
    what = f"{len(wrong)} clips have a number of frames that differs from their total_frames"
    yield warning(what, "correct total_frames or the arrays; the arrays are used", wrong)
    sound = evidence.sound()
    most = max((facts.num_person for _, facts in sound), default=spec.num_person)
    many = [item.name for item, facts in sound if facts.num_person > spec.num_person]
    if many:
        chosen = "the most motion" if evidence.wanted.is_3d else "the highest scores"
        yield warning(
            f"{len(many)} clips have up to {most} persons, but num_person is {spec.num_person}: "
            f"the persons with {chosen} are kept",
            f"set {KEY}num_person={min(most, LIMITS[1])} to keep more",
            many,
        )
    elif 0 < most < spec.num_person:
        yield warning(
            f"num_person is {spec.num_person}, but no clip has more than {most}",
            f"set {KEY}num_person={most}: an empty person slot costs as much time as a person",
        )


def units(evidence: Evidence) -> Iterator[Problem]:
    """Coordinates in a unit other than the configured one, judged by their range."""
    seen, wanted = evidence.seen(), evidence.wanted
    if not seen or misordered(evidence):
        return
    axes = {facts.num_axis for _, facts in seen}
    if len(axes) > 1:
        flat = [item.name for item, facts in seen if facts.num_axis == 2]
        solid = [item.name for item, facts in seen if facts.num_axis == 3]
        what = f"{len(flat)} clips have 2 values per joint and {len(solid)} have 3"
        yield error(what, "convert all clips to one format", min(flat, solid, key=len))
        return
    low = np.stack([facts.low for _, facts in seen])  # N, C
    high = np.stack([facts.high for _, facts in seen])
    if wanted.is_3d and axes == {2}:
        what = f"joints have 2 coordinates, but unit {wanted.unit} needs x, y, z"
        is_pixel = _top(high) > MAX_NORMALISED
        yield error(what, _SET_PIXEL if is_pixel else f"set {KEY}unit=normalised")
    elif wanted.is_3d:
        yield from _in_space(evidence, low, high)
    else:
        yield from _in_image(evidence, low, high)


def _top(high: np.ndarray) -> float:
    """The largest x or y of a typical clip; high: (N, C)."""
    return float(np.median(high[:, :2].max(axis=1)))


def _in_space(evidence: Evidence, low: np.ndarray, high: np.ndarray) -> Iterator[Problem]:
    """low, high: (N, C=3) of the clips with a person."""
    body = typical_extent(evidence)
    is_metre = evidence.wanted.unit == "metre"
    found = f"unit is {evidence.wanted.unit}, but the typical body size is {body:.4g}"
    third_is_score = np.median(low[:, 2]) >= 0 and np.median(high[:, 2]) <= MAX_SCORE
    if is_metre and body > MAX_METRES:
        if third_is_score:
            yield error(f"{found}: possibly pixels, with scores as third values", _SET_PIXEL)
        elif body >= MIN_BODY_MILLIMETRES:
            yield error(f"{found}: these are millimetres", f"set {KEY}unit=millimetre")
        else:
            yield error(f"{found}: possibly centimetres", "convert the coordinates to metres")
    elif is_metre and body < MIN_METRES:
        yield error(f"{found}: too small for a person", "convert the coordinates to metres")
    elif not is_metre and body < MAX_METRES:
        yield error(f"{found}: these are metres", f"set {KEY}unit=metre")
    else:
        left, right = np.median(low[:, :2], axis=0), np.median(high[:, :2], axis=0)
        if is_metre and left.min() >= 0 and right.max() <= 1:
            yield warning(
                "unit is metre, but x and y range from 0 to 1: possibly normalised image "
                "coordinates",
                f"set {KEY}unit=normalised, if the third values are scores",
            )
        reach = np.maximum(np.abs(low), np.abs(high)).max(axis=1) / (1 if is_metre else 1000)
        far = [item.name for (item, _), metres in zip(evidence.seen(), reach) if metres > FAR]
        what = f"{len(far)} clips have joints more than {FAR:g} m from the origin"
        yield warning(what, "if these are outliers of the sensor, write 0 for such joints", far)


def _in_image(evidence: Evidence, low: np.ndarray, high: np.ndarray) -> Iterator[Problem]:
    """low, high: (N, C) of the clips with a person."""
    top = _top(high)
    unit = evidence.wanted.unit
    low_score, high_score = low[:, 2:], high[:, 2:]  # empty where C is 2
    if low_score.size and not (np.median(low_score) >= 0 and np.median(high_score) <= MAX_SCORE):
        yield error(
            f"unit is {unit}, but the third values range from {low_score.min():.4g} to "
            f"{high_score.max():.4g}, which are not scores (0 to 1)",
            f"set {KEY}unit=metre or millimetre for x, y, z, or remove z",
        )
    elif unit == "normalised":
        yield from _normalised(evidence, low, high)
    elif top <= MAX_NORMALISED:
        what = f"unit is pixel, but x and y reach only {top:.3g}: these are normalised coordinates"
        yield error(what, f"set {KEY}unit=normalised")
    else:
        yield from _pixels(evidence)


def _normalised(evidence: Evidence, low: np.ndarray, high: np.ndarray) -> Iterator[Problem]:
    if _top(high) > MAX_NORMALISED:
        x, y = np.median(high[:, :2], axis=0)
        what = f"unit is normalised, but x reaches {x:.4g} and y reaches {y:.4g}: these are pixels"
        yield error(what, _SET_PIXEL)
        return
    if np.median(low[:, :2].min(axis=1)) < -0.25:
        yield warning(
            "x and y of most clips reach below 0: possibly centred already, or in -1 to 1",
            "rescale them to 0 to 1, with 0 at the left and top edges",
        )
        return
    outside = np.any((low[:, :2] < -0.5) | (high[:, :2] > 1.5), axis=1)
    clips = [item.name for (item, _), is_outside in zip(evidence.seen(), outside) if is_outside]
    what = f"{len(clips)} clips have joints far outside the image"
    yield warning(what, "write 0 for such joints", clips)


def _pixels(evidence: Evidence) -> Iterator[Problem]:
    seen = evidence.seen()
    unknown = [item.name for item, facts in seen if facts.image_size is None]
    if unknown:
        what = f"unit is pixel, but {len(unknown)} clips have no image size"
        yield error(what, f"set {KEY}image_size=[WIDTH,HEIGHT]", unknown)
        return
    sized = [(item.name, facts, facts.image_size) for item, facts in seen if facts.image_size]
    outside = [(name, facts, size) for name, facts, size in sized if _is_outside(facts, size)]
    if not outside:
        return
    clips = [name for name, _, _ in outside]
    x, y = np.median([facts.high[:2] for _, facts, _ in outside], axis=0)
    w, h = outside[0][2]
    what = (
        f"{len(clips)} clips have joints outside their image: x reaches {x:.4g} and y reaches "
        f"{y:.4g}, the first one's image is {w:g} x {h:g}"
    )
    if 2 * len(outside) <= len(seen):
        yield warning(what, "write 0 for such joints, if the image size is correct", clips)
    elif not any(_is_outside(facts, (size[1], size[0])) for _, facts, size in outside):
        yield error(f"{what}: width and height seem swapped", _SET_IMAGE_SIZE, clips)
    else:
        yield error(what, _SET_IMAGE_SIZE, clips)


def _is_outside(facts: Facts, size: tuple[float, float]) -> bool:
    margin = MARGIN * np.array(size)
    return bool((facts.low[:2] < -margin).any() or (facts.high[:2] > size + margin).any())


def typical_extent(evidence: Evidence) -> float:
    """Longest side of a body's bounding box, median over the clips; in the unit of the data."""
    return float(np.median([facts.extent for _, facts in evidence.seen()] or [0.0]))
