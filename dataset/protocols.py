"""Properties of a data set that are known before it is read: classes, joints, sizes; and, for
benchmarks with protocols, which recordings are for training and which for evaluation.

NTU RGB+D 60 (Shahroudy et al., CVPR 2016) and 120 (Liu et al., TPAMI 2020), the project's own
synthetic recordings, which follow the same naming scheme, and Kinetics-skeleton (Yan et al., AAAI
2018). Any other data set is a user's own and is described by the configuration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.data import BENCHMARK_FRAMES, KINETICS, MOST_CLASSES, MOST_FRAMES, MOST_PERSONS
from dataset.kinetics_labels import NAMES_KEY, class_names_in
from dataset.skeletons import Skeleton, skeleton
from errors import UserError, choose, nearest_hint
from safe_io import read_text

MAX_FRAME = BENCHMARK_FRAMES  # frames kept of a clip on disk
NUM_PERSON = 2  # persons kept of a clip on disk
LIMITS = MOST_FRAMES, MOST_PERSONS  # of max_frame and num_person of a user's own data

_CLIP_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(\.skeleton)?")
_CLASS_NAMES = Path(__file__).parent / "class_names"

_XSUB_60 = frozenset((1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38))
_XSUB_120 = _XSUB_60 | frozenset(
    (45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86)
    + (89, 91, 92, 93, 94, 95, 97, 98, 100, 103)
)


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that the rest of the system needs. max_frame, num_person: T and
    M of a clip on disk. class_names: num_class of them, in label order."""

    name: str
    num_class: int
    skeleton: Skeleton
    num_person: int
    max_frame: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ClipName:
    """The five numbers of a recording's name, counted from 1 as in the name."""

    setup: int
    camera: int
    subject: int
    repeat: int
    action: int

    @classmethod
    def parse(cls, name: str) -> ClipName:
        """'S001C002P003R002A013.skeleton' -> fields. Raises ValueError for any other form."""
        match = _CLIP_NAME.fullmatch(name)
        if not match:
            raise ValueError(f"{name!r} is not of the form SsssCcccPpppRrrrAaaa.skeleton")
        return cls(*(int(field) for field in match.groups()[:5]))


@dataclass(frozen=True)
class Protocol:
    """A split of one source of recordings. `is_train(clip)` selects those for training; all others
    are for evaluation. Labels are `clip.action - 1`, in [0, num_class)."""

    name: str
    source: str
    num_class: int
    is_train: Callable[[ClipName], bool]

    def spec(self) -> DataSpec:
        """Its data set. NTU RGB+D 60 has the first half of the class names of 120."""
        names = _names("synthetic" if self.source == "synthetic" else "ntu120")[: self.num_class]
        joints = skeleton("ntu-25")
        return DataSpec(self.name, self.num_class, joints, NUM_PERSON, MAX_FRAME, tuple(names))


_PROTOCOLS = (
    Protocol("ntu-xsub", "ntu60", 60, lambda clip: clip.subject in _XSUB_60),
    Protocol("ntu-xview", "ntu60", 60, lambda clip: clip.camera in (2, 3)),
    Protocol("ntu-xsub120", "ntu120", 120, lambda clip: clip.subject in _XSUB_120),
    Protocol("ntu-xset120", "ntu120", 120, lambda clip: clip.setup % 2 == 0),
    Protocol("synthetic-xsub", "synthetic", 12, lambda clip: clip.subject % 2 == 1),
)
PROTOCOLS = {each.name: each for each in _PROTOCOLS}


def protocol(name: str) -> Protocol:
    """The protocol with this name, or a UserError that lists the names."""
    return choose(PROTOCOLS, name, where="dataset")


def data_spec(name: str, own: Mapping[str, Any] | None = None) -> DataSpec:
    """The properties of the data set with this name.

    own: for a user's own data, the configuration's skeleton (name or .yaml file), num_class,
    num_person, max_frame and class_names (see docs/configs.md); {'class_names'} for data in the
    format of Kinetics-skeleton. Raises UserError for an unknown name, and if settings of a user's
    own data are missing or contradictory.
    """
    if name == KINETICS or (own is not None and own.keys() == {"class_names"}):
        names, joints = _kinetics_classes(name, own), skeleton("openpose-18")
        return DataSpec(name, len(names), joints, NUM_PERSON, MAX_FRAME, names)
    if own is None or name in PROTOCOLS:
        return protocol(name).spec()
    num_class, file = own["num_class"], own["class_names"]
    if num_class == 0:
        hint = nearest_hint(name, [*PROTOCOLS, KINETICS])
        raise UserError(
            f"dataset is {name!r}, which is not a benchmark ({hint}); your own data need "
            "dataset_args.keypoint.num_class, skeleton and source_path: docs/data.md"
        )
    names = tuple(_names(file) if file else (f"class {n}" for n in range(num_class)))
    if len(names) != num_class:
        raise UserError(
            f"{file}: {len(names)} names; dataset_args.keypoint.num_class is {num_class}"
        )
    joints = skeleton(own["skeleton"])
    return DataSpec(name, num_class, joints, own["num_person"], own["max_frame"], names)


def _kinetics_classes(name: str, own: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The 400 classes of Kinetics-skeleton, or the user's own: of a list, or of a folder with label
    files."""
    if own is None:
        return tuple(_names("kinetics400"))
    if name == KINETICS:
        raise UserError(
            f"dataset is {name!r}, which has the 400 classes of Kinetics, but {NAMES_KEY} is "
            f"{own['class_names']!r}; choose another name for classes of your own: -d my_set"
        )
    source = own["class_names"]
    return tuple(class_names_in(source) if os.path.isdir(source) else _names(source))


def _names(file: str) -> list[str]:
    """The lines of a built-in list, given by name, or of a .txt file with one class per line."""
    path = Path(file) if file.endswith(".txt") else _CLASS_NAMES / f"{file}.txt"
    text = read_text(path)
    if text.count("\n") > MOST_CLASSES:
        raise UserError(f"{path}: more than {MOST_CLASSES} lines, one for each class; remove some")
    return text.splitlines()
