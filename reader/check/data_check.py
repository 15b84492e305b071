"""The check of a user's own data before anything is made of them: what is in them, in a report,
and the usual mistakes by name. Every problem says which clips have it and what to do."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

import numpy as np

from reader.check import lists, values
from reader.check.types import Evidence, Problem
from reader.source import Report

WIDTH = 100  # of the report
RULES = (
    *(lists.splits, lists.names, lists.labels),
    *(values.unreadable, values.joints, values.unusable, values.units),
    *(values.empty, values.sizes, lists.copies, lists.rates),
)


def check(evidence: Evidence) -> Report:
    """Apply every rule; errors come first in the report."""
    problems = [problem for rule in RULES for problem in rule(evidence)]
    problems.sort(key=lambda problem: not problem.is_error)
    errors = [problem.line() for problem in problems if problem.is_error]
    lines = [f"Data check of {evidence.path}", *_statistics(evidence), ""]
    lines += [f"errors: {len(errors)}, warnings: {len(problems) - len(errors)}"]
    for problem in problems:
        lines += _paragraph(problem)
    return Report("\n".join(lines) + "\n", errors)


def _paragraph(problem: Problem) -> list[str]:
    heading = "ERROR" if problem.is_error else "WARNING"
    lines = [f"{heading}: {problem.what}"]
    if problem.clips:
        lines.append(f"  clips: {problem.named()}")
    return [*lines, f"  do: {problem.mend}"]


def _statistics(evidence: Evidence) -> Iterator[str]:
    wanted, spec = evidence.wanted, evidence.wanted.spec
    phases = Counter(item.phase for item in evidence.items)
    halves = ", ".join(
        f"{phases[phase]} in split {split!r} for {phase}" for phase, split in wanted.splits.items()
    )
    yield f"clips: {len(evidence.entries)} listed; {halves}"
    others = Counter(split for entry in evidence.entries for split in entry.splits or ("no split",))
    left = [f"{n} in {name}" for name, n in others.items() if name not in wanted.splits.values()]
    if left:
        yield f"other splits, not used: {', '.join(left)}"
    yield (
        f"settings: {spec.skeleton.name} ({spec.skeleton.num_joint} joints), unit {wanted.unit}, "
        f"{spec.num_class} classes from {wanted.first_label}, persons kept: {spec.num_person}"
    )
    yield from _sizes(evidence)
    yield from _joints(evidence)
    yield from _classes(evidence)


def _sizes(evidence: Evidence) -> Iterator[str]:
    lengths = [facts.num_frame for _, facts in evidence.read()]
    if lengths:
        yield (
            f"frames a clip: shortest {min(lengths)}, median {np.median(lengths):g}, longest "
            f"{max(lengths)}; max_frame is {evidence.wanted.spec.max_frame}"
        )
        persons = Counter(facts.num_person for _, facts in evidence.sound())
        shown = ", ".join(f"{m} in {n} clips" for m, n in sorted(persons.items()))
        yield f"persons seen: {shown}"
    seen = [facts for _, facts in evidence.seen()]
    if len({facts.num_axis for facts in seen}) == 1:
        low = np.min([facts.low for facts in seen], axis=0)
        high = np.max([facts.high for facts in seen], axis=0)
        third = "z" if evidence.wanted.is_3d else "score"
        ranges = [f"{n} {a:.4g} to {b:.4g}" for n, a, b in zip(("x", "y", third), low, high)]
        body = values.typical_extent(evidence)
        yield f"coordinates: {', '.join(ranges)}; a typical body measures {body:.4g}"


def _joints(evidence: Evidence) -> Iterator[str]:
    names = evidence.wanted.spec.skeleton.joints
    shares = zip(names, values.missing_shares(evidence))
    missing = [f"{name} {share:.1%}" for name, share in shares if share > 0]
    text = ", ".join(missing) or "none"
    yield from textwrap.wrap(f"missing joints, share of frames: {text}", WIDTH, **_INDENT)


def _classes(evidence: Evidence) -> Iterator[str]:
    spec, first = evidence.wanted.spec, evidence.wanted.first_label
    counts = Counter((item.phase, item.label) for item in evidence.items)
    cells = [
        f"{n + first} {name}: {counts['train', n]}/{counts['eval', n]}".replace(" ", "\0")
        for n, name in enumerate(spec.class_names)
    ]
    text = f"clips a class, train/eval: {', '.join(cells)}"
    for line in textwrap.wrap(text, WIDTH, **_INDENT):  # never inside a class
        yield line.replace("\0", " ")


_INDENT = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
