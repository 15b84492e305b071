"""Rules of the data check about single clips: frames without a person, no motion, odd lengths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from reader.check.types import Evidence, Problem, warning

MIN_CLASS = 5  # clips; fewer have no typical length
# A clip is of odd length if it differs from the class's median by this factor and is an outlier
# (modified z-score of Iglewicz and Hoaglin) among the class's lengths.
ODD_FACTOR, ODD_SCORE = 5.0, 3.5


def empty_frames(evidence: Evidence) -> Iterator[Problem]:
    """Frames without a person in clips with one, the worst clips first."""
    found = [(facts, item.name) for item, facts in evidence.seen() if facts.empty_frames]
    found.sort(key=lambda pair: -pair[0].empty_frames / pair[0].num_frame)
    total = sum(facts.empty_frames for facts, _ in found)
    yield warning(
        f"{len(found)} clips contain frames without a person, {total} in all",
        "remove such frames, also padding at the end, or fill them in; otherwise they are kept "
        "as zeros",
        [f"{name}: {facts.empty_frames} of {facts.num_frame}" for facts, name in found],
    )


def frozen(evidence: Evidence) -> Iterator[Problem]:
    """Clips without motion."""
    clips = [item.name for item, facts in evidence.seen() if facts.is_frozen]
    what = f"{len(clips)} clips are frozen: no joint moves in any frame"
    yield warning(what, "check how they were recorded, or remove them", clips)


def lengths(evidence: Evidence) -> Iterator[Problem]:
    """Clips much longer or shorter than the others of their class, the oddest first."""
    classes = defaultdict(list)
    for item, facts in evidence.sound():
        classes[item.label].append((facts.num_frame, item.name))
    odd: list[tuple[float, str]] = []
    for clips in classes.values():
        if len(clips) < MIN_CLASS:
            continue
        logs = np.log([length for length, _ in clips])
        distance = abs(logs - np.median(logs))
        spread = np.median(distance) / 0.6745
        is_odd = (distance > np.log(ODD_FACTOR)) & (distance > ODD_SCORE * spread)
        usual = np.median([length for length, _ in clips])
        for n in np.flatnonzero(is_odd):
            length, name = clips[n]
            odd.append((distance[n], f"{name}: {length}, usual {usual:g}"))
    yield warning(
        f"{len(odd)} clips are more than {ODD_FACTOR:g} times as long or as short as usual in "
        "their class",
        "check where they begin and end, and their labels",
        [text for _, text in sorted(odd, reverse=True)],
    )
