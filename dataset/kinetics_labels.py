"""The label files of Kinetics-skeleton: `kinetics_train_label.json` and `kinetics_val_label.json`,
{id: {has_skeleton, label, label_index}} (Yan et al., AAAI 2018; public code
`tools/kinetics_gendata.py`), and the class names in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.data import MOST_CLASSES
from errors import UserError
from safe_io import read_json

SPLITS = {"train": "kinetics_train", "eval": "kinetics_val"}
NAMES_KEY = "dataset_args.kinetics.class_names"


def label_file(folder: str, split: str) -> Path:
    """The label file of 'kinetics_train' or 'kinetics_val'."""
    return Path(folder) / f"{split}_label.json"


def read_labels(file: Path) -> dict[str, Any]:
    """The entries of a label file, not validated. Raises UserError if it cannot be read."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(
            f"{file}: must contain an object: {{id: {{has_skeleton, label, label_index}}}}"
        )
    return content


def class_names_in(folder: str) -> list[str]:
    """The label texts of a folder's label files, in the order of label_index. Raises UserError
    unless each index from 0 has one text of its own."""
    files = [file for split in SPLITS.values() if os.path.isfile(file := label_file(folder, split))]
    names: dict[int, str] = {}
    for number, text in (pair for file in files for pair in _pairs(read_labels(file))):
        if not 0 <= number < MOST_CLASSES:
            what = f"label_index {number}" if abs(number) < 1e9 else "a label_index"
            raise _unclear(folder, f"{what} is not in 0 to {MOST_CLASSES - 1}")
        if names.setdefault(number, text) != text:
            raise _unclear(folder, f"label_index {number} is {names[number]!r} and {text!r}")
    if not names:
        expected = " or ".join(f"{split}_label.json" for split in SPLITS.values())
        raise UserError(f"{NAMES_KEY} is {folder!r}, which has no {expected} with labels")
    index_of: dict[str, int] = {}
    for wanted, (number, text) in enumerate(sorted(names.items())):
        if number != wanted:
            raise _unclear(folder, f"no clip has label_index {wanted}")
        if text in index_of:
            raise _unclear(folder, f"{text!r} is label_index {index_of[text]} and {number}")
        index_of[text] = number
    return [text for _, text in sorted(names.items())]


def _pairs(entries: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """(label_index, label) of the labelled entries; -gd reports the invalid ones."""
    for entry in entries.values():
        if isinstance(entry, dict):
            number, text = entry.get("label_index"), entry.get("label")
            if type(number) is int and isinstance(text, str) and text:
                yield number, text


def _unclear(folder: str, what: str) -> UserError:
    return UserError(
        f"{folder}: {what}; give each class one label and one label_index, from 0 without gaps, or "
        f"name the classes in a .txt file, one per line: --set {NAMES_KEY}=NAMES.txt"
    )
