"""Benchmark protocols: which recordings train, which evaluate, and what their classes are called.

NTU RGB+D 60 (Shahroudy et al., CVPR 2016) and 120 (Liu et al., TPAMI 2020), and the project's
own synthetic recordings, which follow the same naming scheme.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataset.synthetic_actions import ACTION_TABLE
from safe_io import choose

MAX_FRAME = 300  # frames kept of a clip on disk
NUM_PERSON = 2  # persons kept of a clip on disk

_CLIP_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(\.skeleton)?")
_NTU_CLASS_FILE = Path(__file__).parent / "class_names" / "ntu120.txt"
_SYNTHETIC = tuple(action.name for action in ACTION_TABLE)

_XSUB_60 = frozenset((1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38))
_XSUB_120 = _XSUB_60 | frozenset(
    (45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86)
    + (89, 91, 92, 93, 94, 95, 97, 98, 100, 103)
)


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
    """A split of one source of recordings. `is_train(clip)` tells the training recordings; all
    others of the source evaluate. Labels are `clip.action - 1`, in [0, num_class)."""

    name: str
    source: str
    num_class: int
    is_train: Callable[[ClipName], bool]
    skeleton: str = "ntu-25"

    def class_names(self) -> list[str]:
        """Names in label order, `num_class` of them."""
        names = _SYNTHETIC if self.source == "synthetic" else _ntu_class_names()
        return list(names[: self.num_class])


def _ntu_class_names() -> list[str]:
    """All 120, of which NTU RGB+D 60 has the first half."""
    return _NTU_CLASS_FILE.read_text(encoding="utf-8").splitlines()


def _by_subject(train: frozenset[int]) -> Callable[[ClipName], bool]:
    return lambda clip: clip.subject in train


_NTU60 = ("ntu60", 60)
_NTU120 = ("ntu120", 120)

PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("ntu-xsub", *_NTU60, _by_subject(_XSUB_60)),
        Protocol("ntu-xview", *_NTU60, lambda clip: clip.camera in (2, 3)),
        Protocol("ntu-xsub120", *_NTU120, _by_subject(_XSUB_120)),
        Protocol("ntu-xset120", *_NTU120, lambda clip: clip.setup % 2 == 0),
        Protocol(
            "synthetic-xsub", "synthetic", len(_SYNTHETIC), lambda clip: clip.subject % 2 == 1
        ),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol of that name, or a UserError that lists the names."""
    return choose(PROTOCOLS, name, where="dataset")
