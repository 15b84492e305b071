"""Rules of the data check about the numbers: joints, persons, frames, units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from dataset.skeletons import layout_names, skeleton
from reader.check.types import Evidence, Problem, error, warning
from reader.keypoint.clip import MAX_COORDINATE
from reader.keypoint.types import KEY, Facts, Wanted

OFTEN_MISSING = 0.5  # share of the frames with a person
# Longest side of the box around a typical body. People have 0.5 to 2 metres, also when they sit
# or are seen in part; the limits leave room for children and for raised arms.
MAX_METRES, MIN_METRES = 10.0, 0.02
MIN_BODY_MILLIMETRES = 300.0
FAR = 30.0  # metres; beyond the reach of sensors and of most halls
SCORE = 1.5  # OpenPose's confidences pass 1 a little
SHARE = 2.0  # shares of a picture stay below, pixels do not
MARGIN = 0.1  # of the picture; estimators guess joints a little outside


def unreadable(evidence: Evidence) -> Iterator[Problem]:
    """Clips without usable arrays."""
    bad = [f"{item.name}: {result.reason}" for item, result in evidence.bad()]
    if bad:
        what = f"{len(bad)} clips cannot be read"
        yield _left_out_or_error(evidence, what, "repair or remove them", bad)


def _left_out_or_error(evidence: Evidence, what: str, mend: str, clips: list[str]) -> Problem:
    """Such clips can be left out, unless nothing were left."""
    if not evidence.sound():
        return error(what, mend, clips)
    if evidence.wanted.skip_bad:
        return warning(what, "they will be left out", clips)
    mend = f"{mend}, or leave such clips out: --set {KEY}on_bad_file=skip"
    return error(what, mend, clips)


def joints(evidence: Evidence) -> Iterator[Problem]:
    """Another number of joints than the layout's."""
    groups = defaultdict(list)
    for item, facts in evidence.read():
        if not facts.fits:
            groups[facts.num_value, facts.num_joint, facts.num_axis].append(item.name)
    for (num_value, num_joint, num_axis), clips in groups.items():
        ways = [(num_joint, num_axis)] if num_joint else _ways(num_value, evidence.wanted.is_3d)
        what, mend = _misfit(num_value, ways, evidence.wanted)
        yield _left_out_or_error(evidence, what, mend, clips)


def _ways(num_value: int, is_3d: bool) -> list[tuple[int, int]]:
    """(joints, numbers a joint) that a table's columns may be, the likeliest first."""
    axes = (3,) if is_3d else (2, 3)
    ways = [(num_value // c, c) for c in axes if num_value % c == 0]
    known = {skeleton(name).num_joint for name in layout_names()}
    return sorted(ways, key=lambda way: way[0] not in known)


def _misfit(num_value: int, ways: list[tuple[int, int]], wanted: Wanted) -> tuple[str, str]:
    layout = wanted.spec.skeleton
    mine = f"skeleton is {layout.name} ({layout.num_joint} joints)"
    if not ways:
        axes = "3 (x, y, z)" if wanted.is_3d else "2 (x, y) or 3 (x, y, score)"
        return f"the clips have {num_value} numbers a frame, no multiple of {axes}; {mine}", (
            "store x, y and z, or x and y, of every joint and nothing else"
        )
    num_joint, num_axis = ways[0]
    what = f"the clips have {num_value} numbers a frame = {num_joint} joints x {num_axis}; {mine}"
    fitting = [name for name in layout_names() if skeleton(name).num_joint == num_joint]
    if fitting:
        return what, f"set {KEY}skeleton={' or '.join(fitting)}"
    if num_value % (layout.num_joint * num_axis) == 0:
        number = num_value // (layout.num_joint * num_axis)
        return what, f"if these are {number} persons in a row, store them as (M, T, V, C)"
    return (
        what,
        f"no layout that comes with the project has {num_joint} joints: describe yours "
        + (f"in a YAML file (docs/data.md) and set {KEY}skeleton=FILE.yaml"),
    )


def unusable(evidence: Evidence) -> Iterator[Problem]:
    """NaN, infinity, and numbers that are no coordinates in any unit."""
    clips = [item.name for item, facts in evidence.read() if facts.unusable]
    if clips:
        what = f"{len(clips)} clips hold NaN, infinity or numbers beyond {MAX_COORDINATE:g}"
        yield _left_out_or_error(evidence, what, "write 0 for joints that were not seen", clips)


def empty(evidence: Evidence) -> Iterator[Problem]:
    """Clips and joints that are not there."""
    clips = [item.name for item, facts in evidence.sound() if not facts.body_frames]
    if clips:
        what = f"{len(clips)} clips show nobody: all of their joints are 0"
        yield warning(what, "remove them; they are kept otherwise", clips)
    names = evidence.wanted.spec.skeleton.joints
    rare = [
        (name, share)
        for name, share in zip(names, missing_shares(evidence))
        if share > OFTEN_MISSING
    ]
    if rare:
        shown = ", ".join(f"{name} in {share:.0%}" for name, share in rare)
        yield warning(
            f"joints that are missing in most frames: {shown}",
            "is the order of the joints that of the layout? Else choose a layout without them",
        )


def missing_shares(evidence: Evidence) -> np.ndarray:
    """(V,) share of the frames with a person in which each joint is missing."""
    total = sum(facts.body_frames for _, facts in evidence.seen())
    missing = [facts.missing for _, facts in evidence.seen()]
    if not total:
        return np.zeros(evidence.wanted.spec.skeleton.num_joint)
    return np.sum(missing, axis=0) / total


def sizes(evidence: Evidence) -> Iterator[Problem]:
    """Frames and persons that will be cut; lengths that are said and not true."""
    spec = evidence.wanted.spec
    read = evidence.read()
    long = [item.name for item, facts in read if facts.num_frame > spec.max_frame]
    if long:
        longest = max(facts.num_frame for _, facts in read)
        what = f"{len(long)} clips are longer than max_frame {spec.max_frame} and will be cut"
        yield warning(what, f"set {KEY}max_frame={longest} to keep all", long)
    short = [item.name for item, facts in read if facts.num_frame == 1]
    if short:
        what = f"{len(short)} clips have a single frame"
        yield warning(what, "are their axes (T, V, C)? Else remove them", short)
    false = [i.name for i, f in read if f.said_frames is not None and f.said_frames != f.num_frame]
    if false:
        what = f"{len(false)} clips have another number of frames than their total_frames"
        yield warning(what, "the arrays count; correct total_frames if they are right", false)
    sound = evidence.sound()
    most = max((facts.num_person for _, facts in sound), default=spec.num_person)
    many = [item.name for item, facts in sound if facts.num_person > spec.num_person]
    if many:
        rule = "move most widely" if evidence.wanted.is_3d else "have the highest scores"
        yield warning(
            f"{len(many)} clips have up to {most} persons, and num_person is {spec.num_person}: "
            f"those who {rule} are kept",
            f"set {KEY}num_person={most} to keep more",
            many,
        )
    elif 0 < most < spec.num_person:
        yield warning(
            f"num_person is {spec.num_person}, and no clip has more than {most}",
            f"set {KEY}num_person={most}: an empty place costs as much time as a person",
        )


def units(evidence: Evidence) -> Iterator[Problem]:
    """Coordinates in another unit than the one that is set, as far as their size tells."""
    seen, wanted = evidence.seen(), evidence.wanted
    if not seen:
        return
    axes = {facts.num_axis for _, facts in seen}
    if len(axes) > 1:
        flat = [item.name for item, facts in seen if facts.num_axis == 2]
        solid = [item.name for item, facts in seen if facts.num_axis == 3]
        what = f"{len(flat)} clips have 2 numbers a joint and {len(solid)} have 3"
        yield error(what, "bring all to one form", min(flat, solid, key=len))
        return
    low = np.stack([facts.low for _, facts in seen])  # N, C
    high = np.stack([facts.high for _, facts in seen])
    top = float(np.median(high[:, :2].max(axis=1)))
    if wanted.is_3d and axes == {2}:
        unit = "pixel" if top > SHARE else "normalised"
        yield error(
            f"joints have 2 coordinates, and unit {wanted.unit} needs x, y, z",
            f"set {KEY}unit={unit}" + (f" {KEY}image_size=[WIDTH,HEIGHT]" * (unit == "pixel")),
        )
    elif wanted.is_3d:
        yield from _in_space(evidence, low, high)
    else:
        yield from _in_picture(evidence, low, high, top)


def _in_space(evidence: Evidence, low: np.ndarray, high: np.ndarray) -> Iterator[Problem]:
    """low, high: (N, C=3) of the clips that show somebody."""
    body = typical_extent(evidence)
    is_metre = evidence.wanted.unit == "metre"
    seems = f"unit is {evidence.wanted.unit}, and a typical body measures {body:.4g}"
    third_is_score = np.median(low[:, 2]) >= 0 and np.median(high[:, 2]) <= SCORE
    if is_metre and body > MAX_METRES:
        if third_is_score:
            mend = f"set {KEY}unit=pixel {KEY}image_size=[WIDTH,HEIGHT]"
            yield error(f"{seems}: pixels, with scores as third numbers?", mend)
        elif body >= MIN_BODY_MILLIMETRES:
            yield error(f"{seems}: these are millimetres", f"set {KEY}unit=millimetre")
        else:
            yield error(f"{seems}: centimetres?", "bring the coordinates to metres")
    elif is_metre and body < MIN_METRES:
        yield error(f"{seems}: too small for any", "bring the coordinates to metres")
    elif not is_metre and body < MAX_METRES:
        yield error(f"{seems}: these are metres", f"set {KEY}unit=metre")
    else:
        left, right = np.median(low[:, :2], axis=0), np.median(high[:, :2], axis=0)
        if is_metre and left.min() >= 0 and right.max() <= 1:
            yield warning(
                "unit is metre, and x and y run from 0 to 1: shares of a picture?",
                f"set {KEY}unit=normalised, if the third numbers are scores",
            )
        reach = np.maximum(np.abs(low), np.abs(high)).max(axis=1) / (1 if is_metre else 1000)
        far = [item.name for (item, _), metres in zip(evidence.seen(), reach) if metres > FAR]
        if far:
            what = f"{len(far)} clips have joints more than {FAR:g} m from the origin"
            yield warning(what, "are these outliers of the sensor? Write 0 for such joints", far)


def _in_picture(
    evidence: Evidence, low: np.ndarray, high: np.ndarray, top: float
) -> Iterator[Problem]:
    """low, high: (N, C) of the clips that show somebody. top: highest x or y of a typical one."""
    unit = evidence.wanted.unit
    if low.shape[1] == 3 and not (np.median(low[:, 2]) >= 0 and np.median(high[:, 2]) <= SCORE):
        yield error(
            f"unit is {unit}, and third numbers run from {low[:, 2].min():.4g} to "
            f"{high[:, 2].max():.4g}, which are no scores (0 to 1)",
            f"set {KEY}unit=metre or millimetre for x, y, z, or leave z away",
        )
    elif unit == "normalised":
        yield from _shares(evidence, low, high, top)
    elif top <= SHARE:
        what = f"unit is pixel, and x and y go to {top:.3g}: shares of the picture"
        yield error(what, f"set {KEY}unit=normalised")
    else:
        yield from _pixels(evidence)


def _shares(evidence: Evidence, low: np.ndarray, high: np.ndarray, top: float) -> Iterator[Problem]:
    if top > SHARE:
        x, y = np.median(high[:, :2], axis=0)
        what = f"unit is normalised, and x goes to {x:.4g} and y to {y:.4g}: these are pixels"
        yield error(what, f"set {KEY}unit=pixel {KEY}image_size=[WIDTH,HEIGHT]")
        return
    if np.median(low[:, :2].min(axis=1)) < -0.25:
        yield warning(
            "x and y of most clips run below 0: centred, or -1 to 1, already?",
            "bring them to 0 to 1, 0 at the left and the upper edge",
        )
        return
    outside = (low[:, :2] < -0.5).any(axis=1) | (high[:, :2] > 1.5).any(axis=1)
    clips = [item.name for (item, _), is_outside in zip(evidence.seen(), outside) if is_outside]
    if clips:
        what = f"{len(clips)} clips have joints far outside of the picture"
        yield warning(what, "write 0 for such joints", clips)


def _pixels(evidence: Evidence) -> Iterator[Problem]:
    seen = evidence.seen()
    unknown = [item.name for item, facts in seen if facts.image_size is None]
    if unknown:
        what = f"unit is pixel, and {len(unknown)} clips do not say how large their picture is"
        yield error(what, f"set {KEY}image_size=[WIDTH,HEIGHT]", unknown)
        return
    outside = [(item, facts) for item, facts in seen if _outside(facts, facts.image_size)]
    if not outside:
        return
    clips = [item.name for item, _ in outside]
    x, y = np.median([facts.high[:2] for _, facts in outside], axis=0)
    w, h = outside[0][1].image_size
    what = (
        f"{len(clips)} clips have joints outside of their picture: x goes to {x:.4g} and y to "
        f"{y:.4g}, the first one's picture is {w:g} x {h:g}"
    )
    if 2 * len(outside) <= len(seen):
        yield warning(what, "write 0 for such joints, if the size is right", clips)
    elif not any(_outside(facts, facts.image_size[::-1]) for _, facts in outside):
        yield error(f"{what}: width and height seem exchanged", _IMAGE_SIZE, clips)
    else:
        yield error(what, _IMAGE_SIZE, clips)


_IMAGE_SIZE = f"set {KEY}image_size=[WIDTH,HEIGHT], or img_shape=(height, width), as recorded"


def _outside(facts: Facts, size: tuple[float, float]) -> bool:
    margin = MARGIN * np.array(size)
    return bool((facts.low[:2] < -margin).any() or (facts.high[:2] > size + margin).any())


def typical_extent(evidence: Evidence) -> float:
    """Longest side of the box around a body, median over the clips; in the unit of the data."""
    return float(np.median([facts.extent for _, facts in evidence.seen()] or [0.0]))
