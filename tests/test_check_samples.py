"""The data check on four real data sets: sound settings are not warned about, and the known faults
of each set are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataset.protocols import data_spec
from reader.keypoint.source import keypoint_source
from reader.keypoint.types import Wanted

KEY = "dataset_args.keypoint."
# name -> file, number of classes, layout, vertical axis
SETS = {
    "utd-mhad": ("utd_mhad/utd_mhad.pkl", 27, "kinect-20", "y"),
    "utkinect": ("sets/utkinect/utkinect.pkl", 10, "kinect-sdk-20", "y"),
    "msr": ("sets/msr_action3d/msr_action3d.pkl", 20, "msr-20", "y"),
    "florence": ("sets/florence3d/florence3d.pkl", 9, "florence-15", "z"),
}


def report_of(samples: Path, name: str, **keys: Any) -> str:
    file, num_class, layout, up = SETS[name]
    settings = {"skeleton": layout, "up": up, **keys}
    own = {"num_class": num_class, "class_names": "", "num_person": 1, "max_frame": 1000}
    spec = data_spec(name, {**own, "skeleton": settings["skeleton"]})
    splits = {"train": "train", "eval": "test"}
    wanted = Wanted(spec, splits, 0, "metre", None, skip_bad=True, up=settings["up"])
    source = keypoint_source(str(samples / "samples" / file), wanted)
    assert source.check is not None
    from reader.parallel import in_order
    return source.check.judge(in_order(source.check.examine, source.items, 1)).text
