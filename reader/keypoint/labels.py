"""Labels of a user's own data: numbers, one-hot vectors or names of classes -> numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dataset.labels import class_number
from errors import UserError, nearest_hint
from reader.keypoint.types import KEY, Wanted

_ALLOWED = "must be an integer, one-hot, or, for all clips, the name of a class"


def numbers_of(
    labels: Sequence[Any], where: Sequence[str], wanted: Wanted
) -> tuple[list[int], list[str]]:
    """(number of each label, counted from `first_label` if they are names; lines for the report).

    Names of classes are those of the configuration's class_names; without that file, classes are
    numbered in sorted order. where: the location of each label, for messages. Raises UserError for
    labels that are neither, and for a mixture of numbers and names.
    """
    numbers = [_number(label, wanted) for label in labels]
    others = [n for n, number in enumerate(numbers) if number is None]
    if not others:
        return [number for number in numbers if number is not None], []
    texts = [label.strip() for label in labels if isinstance(label, str)]
    if len(others) < len(labels) or len(texts) < len(labels) or not all(map(_is_name, texts)):
        odd = next((n for n in others if not _is_name(labels[n])), others[0])
        raise UserError(f"{where[odd]}: label is {repr(labels[odd])[:60]}; {_ALLOWED}")
    return _numbers_of_names(texts, where, wanted)


def _numbers_of_names(
    texts: Sequence[str], where: Sequence[str], wanted: Wanted
) -> tuple[list[int], list[str]]:
    names, first = wanted.spec.class_names, wanted.first_label
    how = f"as in {KEY}class_names"
    if names == tuple(f"class {n}" for n in range(len(names))):  # no file was given
        names = tuple(sorted(set(texts)))
        how = f"in sorted order; list them in a file and set {KEY}class_names=FILE.txt"
    number = {name: n + first for n, name in enumerate(names)}
    for text, place in zip(texts, where):
        if text not in number:
            hint = nearest_hint(text, names)
            raise UserError(f"{place}: label is {text!r}, not in {KEY}class_names ({hint})")
    used = set(texts)
    listed = ", ".join(f"{number[name]} {name}" for name in names if name in used)
    return [number[text] for text in texts], [f"labels are names, numbered {how}: {listed}"]


def _number(label: Any, wanted: Wanted) -> int | None:
    if isinstance(label, str):
        return int(float(label)) if re.fullmatch(r"-?[0-9]{1,9}(\.0*)?", label.strip()) else None
    return class_number(label, wanted.spec.num_class)


def _is_name(label: Any) -> bool:
    """Whether it is text that is no number."""
    if not isinstance(label, str) or not label.strip():
        return False
    try:
        float(label)
    except ValueError:
        return True
    return False
