"""Rule of the data check about the order of axes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

from reader.check.types import Evidence, Problem, error
from reader.keypoint.types import KEY, Facts
from reader.source import Item

ORDERS = ["".join(axes) for known in ("MTVC", "TVC") for axes in itertools.permutations(known)]


def misordered(evidence: Evidence) -> list[tuple[Item, Facts]]:
    """Clips whose axes seem to have another order. Those whose sizes allow the order in which they
    are read count only if they are the majority of such clips: single clips may look odd."""
    found = [(item, facts) for item, facts in evidence.read() if facts.axes]
    by_value = [pair for pair in found if pair[1].fits]
    if 2 * len(by_value) > sum(facts.fits for _, facts in evidence.read()):
        return found
    return [pair for pair in found if not pair[1].fits]


def axes(evidence: Evidence) -> Iterator[Problem]:
    """Arrays in another order than (M, T, V, C)."""
    groups = defaultdict(list)
    found = misordered(evidence)
    # Clips with as many frames as joints fit more orders than the others do.
    shared = [order for order in ORDERS if found and all(order in f.axes for _, f in found)]
    for item, facts in found:
        groups[tuple(shared) or facts.axes].append((item.name, facts.shape))
    spec = evidence.wanted.spec.skeleton
    for orders, clips in groups.items():
        shape = clips[0][1]
        usual = ", ".join("MTVC"[-len(shape) :])
        yield error(
            f"the clips' axes are not ({usual}): shape {shape} of {clips[0][0]} looks like "
            f"{' or '.join(', '.join(order).join('()') for order in orders)}, as {spec.name} has "
            f"{spec.num_joint} joints",
            f"set {KEY}axes={' or '.join(orders)}",
            [name for name, _ in clips],
        )
