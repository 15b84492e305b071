"""Rules of the data check about what the data list: splits, names, labels, classes, copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from reader.check.types import MAX_NAMED, Evidence, Problem, error, warning
from reader.keypoint.types import KEY


def splits(evidence: Evidence) -> Iterator[Problem]:
    """Splits that the configuration names and the data do not have; clips in both of them."""
    counts = Counter(split for entry in evidence.entries for split in entry.splits)
    wanted = evidence.wanted.splits
    for phase, split in wanted.items():
        if split and not counts[split]:
            others = [name for name in counts if name not in wanted.values()]
            known = ", ".join(f"{name} ({count} clips)" for name, count in counts.items())
            choice = others[0] if len(others) == 1 else "one of them"
            yield error(
                f"no clip is in split {split!r}, and {KEY}{phase}_split is {split!r}; the data "
                f"have {known or 'no split'}",
                f"set {KEY}{phase}_split to {choice}, or to '' to do without",
            )
    phases = defaultdict(set)
    for item in evidence.items:
        phases[item.name].add(item.phase)
    both = [name for name, found in phases.items() if len(found) > 1]
    if both:
        yield error(
            f"{len(both)} clips are in both splits, {wanted['train']} and {wanted['eval']}: "
            "accuracy would count clips that were trained on",
            "leave each of them in one",
            both,
        )


def names(evidence: Evidence) -> Iterator[Problem]:
    """Clips that are listed twice, and oddities of the list."""
    counts = Counter((item.phase, item.name) for item in evidence.items)
    twice = [name for (_, name), count in counts.items() if count > 1]
    if twice:
        yield error(f"{len(twice)} clips are listed more than once", "list each once", twice)
    for note in evidence.notes:
        yield warning(note, "add them, or remove them, unless that is meant")


def labels(evidence: Evidence) -> Iterator[Problem]:
    """Labels outside of the classes; classes without clips."""
    first, num_class = evidence.wanted.first_label, evidence.wanted.spec.num_class
    if not evidence.items:
        return
    found = [item.label for item in evidence.items]
    low, high = min(found) + first, max(found) + first
    if low >= first and high < first + num_class:
        yield from _classes(evidence)
        return
    outside = [item.name for item in evidence.items if not 0 <= item.label < num_class]
    what = f"labels run from {low} to {high} and num_class is {num_class}"
    if first == 0 and low == 1 and high <= num_class:
        mend = f"set {KEY}first_label=1"
    elif first == 1 and low == 0 and high < num_class:
        what, mend = f"{what}, first_label is 1", f"set {KEY}first_label=0"
    elif low >= first:
        mend = f"set {KEY}num_class={high - first + 1}, or correct the labels"
    else:
        mend = f"correct the labels; {first} to {first + num_class - 1} are allowed"
    yield error(what, mend, outside)


def _classes(evidence: Evidence) -> Iterator[Problem]:
    spec, first = evidence.wanted.spec, evidence.wanted.first_label
    have = {"train": set(), "eval": set()}
    for item in evidence.items:
        have[item.phase].add(item.label)
    nowhere = sorted(set(range(spec.num_class)) - have["train"] - have["eval"])
    if nowhere:
        yield _without_clips(nowhere, evidence)
    for phase, other, mend in (
        ("train", "eval", "such a class cannot be learnt: add training clips, or leave it out"),
        ("eval", "train", "nothing will be known of its accuracy: add clips, or leave it so"),
    ):
        missing = sorted(have[other] - have[phase])
        if missing and have[phase]:
            shown = ", ".join(f"{n + first} ({spec.class_names[n]})" for n in missing[:MAX_NAMED])
            more = " and more" if len(missing) > MAX_NAMED else ""
            half = "training" if phase == "train" else "evaluation"
            clips = [item.name for item in evidence.items if item.label in missing]
            yield warning(
                f"{len(missing)} classes have clips in the other split but none in {half}: "
                f"{shown}{more}",
                mend,
                clips,
            )


def _without_clips(nowhere: list[int], evidence: Evidence) -> Problem:
    num_class, first = evidence.wanted.spec.num_class, evidence.wanted.first_label
    shown = ", ".join(str(n + first) for n in nowhere[:MAX_NAMED])
    more = f" and {len(nowhere) - MAX_NAMED} more" if len(nowhere) > MAX_NAMED else ""
    mend = "add clips, or renumber the labels"
    if nowhere == list(range(num_class - len(nowhere), num_class)):
        mend = f"set {KEY}num_class={num_class - len(nowhere)}, unless clips of them will come"
    elif nowhere == [0] and first == 0:
        mend = f"do labels count from 1? Then set {KEY}first_label=1 num_class={num_class - 1}"
    return warning(
        f"num_class is {num_class}, and {len(nowhere)} labels have no clip: {shown}{more}", mend
    )


def copies(evidence: Evidence) -> Iterator[Problem]:
    """Clips of different names that are the same numbers."""
    same = defaultdict(list)
    for item, facts in evidence.seen():
        same[facts.sha].append(item)
    groups = [items for items in same.values() if len({item.name for item in items}) > 1]
    leaks = [items for items in groups if len({item.phase for item in items}) > 1]
    if leaks:
        yield warning(
            f"{len(leaks)} clips have a copy under another name in the other split: accuracy will "
            "count clips that were trained on",
            "remove the copies from one of the splits",
            [" = ".join(item.name for item in items[:2]) for items in leaks],
        )
    within = [items for items in groups if items not in leaks]
    if within:
        yield warning(
            f"{len(within)} clips have copies under other names in the same split",
            "remove the copies, unless that is meant",
            [" = ".join(item.name for item in items[:2]) for items in within],
        )


def rates(evidence: Evidence) -> Iterator[Problem]:
    """Frames a second that differ: nothing converts them."""
    counts = Counter(entry.fps for entry in evidence.entries if entry.fps)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        odd = [entry.name for entry in evidence.entries if entry.fps not in (0, usual)]
        shown = ", ".join(f"{fps:g}" for fps in sorted(counts))
        yield warning(
            f"clips have different frames a second: {shown}",
            f"bring them to one rate, e.g. {usual:g}: frames are used as they are",
            odd,
        )
