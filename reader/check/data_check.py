"""The check of a user's own data before the data set is written: a report with statistics and the
usual mistakes. Every problem names the clips that have it and the fix."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

import numpy as np

from reader.check import axes, body, clips, lists, values
from reader.check.types import Evidence, first_few
from reader.source import Report

WIDTH = 100  # of the report
RULES = (
    *(lists.splits, lists.names, lists.labels),
    *(axes.axes, values.unreadable, values.joints, values.unusable, values.units),
    *(values.empty, body.missing, body.order, body.vertical),
    *(clips.empty_frames, clips.frozen, values.sizes, clips.lengths, lists.copies, lists.rates),
)


def check(evidence: Evidence) -> Report:
    """Apply every rule; errors come first in the report."""
    problems = [found for rule in RULES for found in rule(evidence) if found.clips != []]
    problems.sort(key=lambda problem: not problem.is_error)
    errors = [problem.line() for problem in problems if problem.is_error]
    lines = [f"Data check of {evidence.path}", *_statistics(evidence), ""]
    lines += [f"errors: {len(errors)}, warnings: {len(problems) - len(errors)}"]
    for problem in problems:
        lines.append(f"{'ERROR' if problem.is_error else 'WARNING'}: {problem.what}")
        if problem.clips:
            lines.append(f"  clips: {first_few(problem.clips)}")
        lines.append(f"  fix: {problem.fix}")
    return Report("\n".join(lines) + "\n", errors, {"eval": lists.copied(evidence)})


def _statistics(evidence: Evidence) -> Iterator[str]:
    wanted, spec = evidence.wanted, evidence.wanted.spec
    phases = Counter(item.phase for item in evidence.items)
    used = ", ".join(
        f"{phases[phase]} in split {split!r} for {phase}" for phase, split in wanted.splits.items()
    )
    yield f"clips: {len(evidence.entries)} listed; {used}"
    counts = Counter(split for entry in evidence.entries for split in entry.splits or ("no split",))
    unused = [f"{n} in {name}" for name, n in counts.items() if name not in wanted.splits.values()]
    if unused:
        yield f"unused splits: {', '.join(unused)}"
    yield (
        f"settings: {spec.skeleton.name} ({spec.skeleton.num_joint} joints), unit {wanted.unit}, "
        f"{spec.num_class} classes, first label {wanted.first_label}, persons kept: "
        f"{spec.num_person}"
    )
    for remark in evidence.remarks:
        yield from _wrapped(remark)
    notes = Counter(note for _, facts in evidence.read() for note in facts.notes)
    for note, number in notes.items():
        yield f"{number} clips in .csv files: {note}"
    yield from _sizes(evidence)
    yield from _joints(evidence)
    yield from _classes(evidence)


def _sizes(evidence: Evidence) -> Iterator[str]:
    lengths = [facts.num_frame for _, facts in evidence.read()]
    if lengths:
        yield (
            f"frames per clip: shortest {min(lengths)}, median {np.median(lengths):g}, longest "
            f"{max(lengths)}; max_frame is {evidence.wanted.spec.max_frame}"
        )
        persons = sorted(Counter(facts.num_person for _, facts in evidence.sound()).items())
        yield f"persons detected: {', '.join(f'{m} in {n} clips' for m, n in persons)}"
    seen = [facts for _, facts in evidence.seen()]
    if len({facts.num_axis for facts in seen}) == 1:
        low = np.min([facts.low for facts in seen], axis=0)
        high = np.max([facts.high for facts in seen], axis=0)
        names = ("x", "y", "z" if evidence.wanted.is_3d else "score")
        ranges = [f"{n} {a:.4g} to {b:.4g}" for n, a, b in zip(names, low, high)]
        body = values.typical_extent(evidence)
        yield f"coordinates: {', '.join(ranges)}; typical body size {body:.4g}"


def _joints(evidence: Evidence) -> Iterator[str]:
    names = evidence.wanted.spec.skeleton.joints
    fractions = zip(names, body.missing_fractions(evidence))
    missing = [f"{name} {part:.1%}" for name, part in fractions if part > 0]
    yield from _wrapped(f"missing joints, percentage of frames: {', '.join(missing) or 'none'}")
    root = body.reference(evidence)
    if root is not None:
        yield f"root-relative: {names[root]} is 0 in every frame, coordinates are relative to it"


def _classes(evidence: Evidence) -> Iterator[str]:
    spec, first = evidence.wanted.spec, evidence.wanted.first_label
    counts = Counter((item.phase, item.label) for item in evidence.written())
    cells = [
        f"{n + first} {name}: {counts['train', n]}/{counts['eval', n]}".replace(" ", "\0")
        for n, name in enumerate(spec.class_names)
    ]
    for line in _wrapped(f"clips per class, train/eval: {', '.join(cells)}"):
        yield line.replace("\0", " ")  # \0 prevents line breaks inside a class


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
