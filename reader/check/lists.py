"""Rules of the data check about the list of clips: splits, names, labels, classes, duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from reader.check.types import MAX_NAMED, Evidence, Problem, error, first_few, warning
from reader.keypoint.types import KEY
from reader.source import Item


def splits(evidence: Evidence) -> Iterator[Problem]:
    """Splits of the configuration that the data lack; clips in both splits."""
    counts = Counter(split for entry in evidence.entries for split in entry.splits)
    wanted = evidence.wanted.splits
    for phase, split in wanted.items():
        if split and not counts[split]:
            others = [name for name in counts if name not in wanted.values()]
            known = ", ".join(f"{name} ({count} clips)" for name, count in counts.items())
            choice = others[0] if len(others) == 1 else "one of them"
            yield error(
                f"{KEY}{phase}_split is {split!r}, but no clip is in that split; the data have "
                f"{known or 'no split'}",
                f"set {KEY}{phase}_split to {choice}, or to '' for no {phase} data",
            )
    phases = defaultdict(set)
    for item in evidence.items:
        phases[item.name].add(item.phase)
    both = [name for name, found in phases.items() if len(found) > 1]
    what = (
        f"{len(both)} clips are in both splits, {wanted['train']} and {wanted['eval']}: "
        "accuracy would include training clips"
    )
    yield error(what, "keep each of them in one split", both)


def names(evidence: Evidence) -> Iterator[Problem]:
    """Clips that are listed twice, and notes on the list."""
    counts = Counter((item.phase, item.name) for item in evidence.items)
    twice = [name for (_, name), count in counts.items() if count > 1]
    yield error(f"{len(twice)} clips are listed more than once", "list each once", twice)
    for note in evidence.notes:
        yield warning(note, "add them or remove them, unless this is intended")


def labels(evidence: Evidence) -> Iterator[Problem]:
    """Labels that are out of range; classes without clips."""
    first, num_class = evidence.wanted.first_label, evidence.wanted.spec.num_class
    items = evidence.written()
    if not items:
        return
    found = [item.label for item in items]
    low, high = min(found) + first, max(found) + first
    if low >= first and high < first + num_class:
        yield from _classes(evidence)
        return
    outside = [item.name for item in items if not 0 <= item.label < num_class]
    what = f"labels range from {low} to {high}, but num_class is {num_class}"
    if first == 0 and low == 1 and high <= num_class:
        fix = f"set {KEY}first_label=1"
    elif first == 1 and low == 0 and high < num_class:
        what, fix = f"{what} and first_label is 1", f"set {KEY}first_label=0"
    elif low >= first:
        fix = f"set {KEY}num_class={high - first + 1}, or correct the labels"
    else:
        fix = f"correct the labels; allowed: {first} to {first + num_class - 1}"
    yield error(what, fix, outside)


def _classes(evidence: Evidence) -> Iterator[Problem]:
    spec, first = evidence.wanted.spec, evidence.wanted.first_label
    present: dict[str, set[int]] = {"train": set(), "eval": set()}
    for item in evidence.written():
        present[item.phase].add(item.label)
    unused = sorted(set(range(spec.num_class)) - present["train"] - present["eval"])
    if unused:
        yield _without_clips(unused, evidence)
    for phase, other, use, fix in (
        ("train", "eval", "training", "add training clips, or remove the class: it is not learned"),
        ("eval", "train", "evaluation", "add clips, or its accuracy will not be measured"),
    ):
        missing = sorted(present[other] - present[phase])
        if missing and present[phase]:
            shown = ", ".join(f"{n + first} ({spec.class_names[n]})" for n in missing[:MAX_NAMED])
            more = " and more" if len(missing) > MAX_NAMED else ""
            clips = [item.name for item in evidence.written() if item.label in missing]
            yield warning(
                f"{len(missing)} classes have clips in the other split but none for {use}: "
                f"{shown}{more}",
                fix,
                clips,
            )


def _without_clips(unused: list[int], evidence: Evidence) -> Problem:
    num_class, first = evidence.wanted.spec.num_class, evidence.wanted.first_label
    shown = first_few([str(n + first) for n in unused])
    fix = "add clips, or renumber the labels"
    if unused == list(range(num_class - len(unused), num_class)):
        fix = f"set {KEY}num_class={num_class - len(unused)}, unless you will add clips of them"
    elif unused == [0] and first == 0:
        fix = f"if labels start at 1, set {KEY}first_label=1 num_class={num_class - 1}"
    what = f"num_class is {num_class}, but {len(unused)} labels have no clips: {shown}"
    return warning(what, fix)


def copies(evidence: Evidence) -> Iterator[Problem]:
    """Clips with different names and identical arrays."""
    leaks: list[str] = []
    within: list[str] = []
    for items in _identical(evidence):
        is_leak = len({item.phase for item in items}) > 1
        (leaks if is_leak else within).append(" = ".join(item.name for item in items[:2]))
    what = (
        f"{len(leaks)} clips have a copy under another name in the other split: accuracy will "
        "include training clips"
    )
    fix = "remove the copies from one of the splits; main.py -e also reports the accuracy without"
    yield warning(what, fix, leaks)
    what = f"{len(within)} clips have copies under other names in the same split"
    yield warning(what, "remove the copies, unless this is intended", within)


def copied(evidence: Evidence) -> list[str]:
    """Names of the evaluation clips that are copies of training clips."""
    groups = [items for items in _identical(evidence) if any(i.phase == "train" for i in items)]
    return [item.name for items in groups for item in items if item.phase == "eval"]


def _identical(evidence: Evidence) -> list[list[Item]]:
    """Groups of clips with different names and identical arrays."""
    same = defaultdict(list)
    for item, facts in evidence.seen():
        same[facts.sha].append(item)
    return [items for items in same.values() if len({item.name for item in items}) > 1]


def rates(evidence: Evidence) -> Iterator[Problem]:
    """Different frame rates, which are not converted."""
    counts = Counter(entry.fps for entry in evidence.entries if entry.fps)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        odd = [entry.name for entry in evidence.entries if entry.fps not in (0, usual)]
        shown = ", ".join(f"{fps:g}" for fps in sorted(counts))
        yield warning(
            f"clips have different frame rates: {shown} frames/s",
            f"resample them to one rate, e.g. {usual:g}: frames are used as they are",
            odd,
        )
