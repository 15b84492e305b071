"""The data check on real data sets: right settings are not warned about, wrong ones are, and the
known faults of each set are named."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.protocols import data_spec
from reader.keypoint.source import keypoint_source
from reader.keypoint.types import Wanted
from reader.parallel import in_order
from tests.keypoint_data import write_folder
from tests.test_data_check import warned

# name -> file, number of classes, layout, vertical axis
SETS = {
    "utd-mhad": ("utd_mhad/utd_mhad.pkl", 27, "kinect-20", "y"),
    "utkinect": ("sets/utkinect/utkinect.pkl", 10, "kinect-sdk-20", "y"),
    "msr": ("sets/msr_action3d/msr_action3d.pkl", 20, "msr-20", "y"),
    "florence": ("sets/florence3d/florence3d.pkl", 9, "florence-15", "z"),
}
KINECTS = ("utd-mhad", "utkinect", "msr")
ORDERS = [SETS[name][2] for name in KINECTS]


def checked(samples: Path, name: str, **keys: Any) -> str:
    """The problems in the report on a set, which is described rightly unless `keys` change it."""
    file, num_class, layout, up = SETS[name]
    settings = {"skeleton": layout, "up": up, **keys}
    own = {"num_class": num_class, "class_names": "", "num_person": 1, "max_frame": 1000}
    spec = data_spec(name, {**own, "skeleton": settings["skeleton"]})
    splits = {"train": "train", "eval": "test"}
    wanted = Wanted(spec, splits, 0, "metre", None, skip_bad=True, up=settings["up"])
    source = keypoint_source(str(samples / "samples" / file), wanted)
    assert source.check is not None
    text = source.check.judge(in_order(source.check.examine, source.items, 1)).text
    return text.partition("errors: 0")[2]


@pytest.mark.parametrize("name", ["utd-mhad", "florence"])
def test_sets_without_faults(samples: Path, name: str):
    assert checked(samples, name) == ", warnings: 0\n"


def test_faults_of_utkinect(samples: Path):
    """A range without frames, one with a wrong digit, and one of another length than the others."""
    text = checked(samples, "utkinect")
    assert text.startswith(", warnings: 2\n")
    assert "1 clips cannot be read\n  clips: carry_s10_e02: an array of shape (1, 0, 20, 3)" in text
    assert (
        "2 clips are more than 5 times as long or as short as usual in their class\n"
        "  clips: push_s03_e01: 174, usual 9.5, push_s09_e01: 55, usual 9.5\n"
    ) in text


def test_faults_of_msr_action3d(samples: Path):
    text = checked(samples, "msr")
    assert text.startswith(", warnings: 3\n")
    assert "1 clips contain no person: all of their joints are 0\n  clips: a13_s09_e02\n" in text
    assert (
        "19 clips contain frames without a person, 1075 in all\n  clips: a07_s04_e01: 36 of 45, "
        "a13_s09_e03: 740 of 936, a20_s02_e03: 33 of 53, "
    ) in text
    assert "usual in their class\n  clips: a13_s09_e03: 936, usual 38.5\n" in text


@pytest.mark.parametrize(
    ("name", "wrong"),
    [pair for pair in itertools.product(KINECTS, ORDERS) if SETS[pair[0]][2] != pair[1]],
)
def test_a_wrong_order_of_joints(samples: Path, name: str, wrong: str):
    text = checked(samples, name, skeleton=wrong)
    right = SETS[name][2]
    assert f"the joints seem to be in the order of {right}: with it, the edges are 1." in text
    assert f"\n  fix: set dataset_args.keypoint.skeleton={right}, if" in text
    assert "vertical axis" not in text


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [("florence", "z", "y"), *((name, "y", "z") for name in KINECTS)]
)
def test_a_wrong_vertical_axis(samples: Path, name: str, right: str, wrong: str):
    text = checked(samples, name, up=wrong)
    assert f"the vertical axis of the bodies is {right}, but up is {wrong}: " in text
    assert f"\n  fix: set dataset_args.keypoint.up={right}\n" in text


def test_recordings_of_ntu(samples: Path, tmp_path: Path):
    golden = np.load(samples / "golden/ntu7_generated.npz")
    rows, arrays = [], {}
    for n, (clip, length) in enumerate(zip(golden["original"], golden["lengths"])):
        rows.append((f"{n}.npy", n % 2, ("train", "test")[n > 3]))
        arrays[f"{n}.npy"] = clip[:, :length].transpose(3, 1, 2, 0)  # M, T, V, C
    source = write_folder(tmp_path / "mine", arrays, rows)
    keys = {"num_person": 2, "max_frame": 300}
    assert warned(source, tmp_path, skeleton="ntu-25", **keys) == ", warnings: 0\n"
    text = warned(source, tmp_path, skeleton="openpose-25", **keys)
    assert "the joints seem to be in the order of ntu-25" in text
