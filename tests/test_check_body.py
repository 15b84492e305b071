"""The rules of the data check about bodies and single clips, on synthetic people: the order of the
joints, the vertical axis, root-relative coordinates, motion and lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dataset.skeletons import skeleton, to_mapping
from dataset.synthetic.clips import make_clips
from errors import UserError
from tests.keypoint_data import body, four_clips, load_split, made, manifest_of, write_folder
from tests.test_data_check import four, report_of, warned, with_one

KEY = "dataset_args.keypoint."
# Joints of the 20-joint layouts under their names in ntu-25, where these differ.
NTU_NAMES = {"hip_centre": "spine_base", "spine": "spine_mid", "shoulder_centre": "spine_shoulder"}
NTU_NAMES |= {"neck": "spine_shoulder"}
KINECTS = ("kinect-20", "kinect-sdk-20", "msr-20")


def people(layout: str = "ntu-25") -> list[np.ndarray]:
    """Four people (T=16, V, 3) in the joint order of a layout, in metres, with y as vertical."""
    ntu = skeleton("ntu-25").joints
    names = [
        name if layout == "ntu-25" else NTU_NAMES.get(name, name)
        for name in skeleton(layout).joints
    ]
    clips = make_clips((4, 16, 25, 1), frames=16, persons=1)
    return list(clips[:, :, :, [ntu.index(name) for name in names], 0].transpose(0, 2, 3, 1))


def written(tmp_path: Path, arrays: list[np.ndarray]) -> Path:
    clips = iter(arrays)
    return write_folder(tmp_path / "mine", *four_clips(lambda _: next(clips)))


# --- the order of the joints -----------------------------------------------------------------


def in_image(array: np.ndarray) -> np.ndarray:
    """(T, V, 2) from 0 to 1."""
    return array[..., :2] / 4 + 0.5


@pytest.mark.parametrize("unit", ["metre", "normalised"])
@pytest.mark.parametrize("configured", KINECTS)
@pytest.mark.parametrize("stored", KINECTS)
def test_the_order_of_three_layouts(tmp_path: Path, stored: str, configured: str, unit: str):
    arrays = people(stored)
    if unit == "normalised":
        arrays = [in_image(array) for array in arrays]
    text = warned(written(tmp_path, arrays), tmp_path, skeleton=configured, unit=unit)
    if stored == configured:
        assert text == ", warnings: 0\n"
        return
    assert (
        f"WARNING: the joints seem to be in the order of {stored}: with it, the edges are 1."
        in text
    )
    assert f"  fix: set {KEY}skeleton={stored}, if the joints are in its order\n" in text


def test_ntu_and_openpose(tmp_path: Path):
    source = written(tmp_path, people())
    assert warned(source, tmp_path, skeleton="ntu-25") == ", warnings: 0\n"
    assert "in the order of ntu-25" in warned(source, tmp_path, skeleton="openpose-25")


def own_layout(tmp_path: Path, base: str, **keys: Any) -> str:
    """A layout of another name, with the same joints under other names, unless `keys` change it."""
    tree = to_mapping(skeleton(base))
    number = {name: n for n, name in enumerate(tree["joints"])}
    tree = {
        "name": "own",
        "joints": [f"joint {n}" for n in number.values()],
        "edges": [[number[a], number[b]] for a, b in tree["edges"]],
        "centre": number[tree["centre"]],
        **keys,
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree))
    return str(tmp_path / "own.yaml")


def test_an_own_layout_is_compared_with_those_built_in(tmp_path: Path):
    layout = own_layout(tmp_path, "kinect-sdk-20")
    source = written(tmp_path, people("kinect-sdk-20"))
    assert warned(source, tmp_path, skeleton=layout) == ", warnings: 0\n"
    text = warned(written(tmp_path, people("msr-20")), tmp_path, skeleton=layout)
    assert "in the order of msr-20" in text and ", with own 2." in text


def test_other_edges_between_the_same_joints_are_no_other_order(tmp_path: Path):
    names = list(skeleton("kinect-20").joints)
    star = [["head", name] for name in names[1:]]
    layout = own_layout(tmp_path, "kinect-20", joints=names, edges=star)
    text = warned(written(tmp_path, people("kinect-20")), tmp_path, skeleton=layout)
    assert "in the order of kinect-20" not in text


# --- the vertical axis -----------------------------------------------------------------------


def z_up(array: np.ndarray) -> np.ndarray:
    """y up -> z up, as recorded by a sensor whose y axis is the depth."""
    x, y, z = np.moveaxis(array, -1, 0)
    return np.stack([x, -z, y], axis=-1)


@pytest.mark.parametrize("names", ["ntu-25", "numbers"])
def test_z_is_vertical(tmp_path: Path, names: str):
    layout = own_layout(tmp_path, "ntu-25") if names == "numbers" else names
    arrays = people()
    source = written(tmp_path, [z_up(array) for array in arrays])
    text = warned(source, tmp_path, skeleton=layout)
    assert "WARNING: the vertical axis of the bodies is z, but up is y: random_rotate" in text
    assert f"  fix: set {KEY}up=z\n" in text
    assert warned(source, tmp_path, skeleton=layout, up="z") == ", warnings: 0\n"
    folder = tmp_path / "out/original/mine"
    data = load_split(folder, "train")[0]
    for clip, array in zip(data, arrays):
        np.testing.assert_allclose(clip[..., 0].transpose(1, 2, 0), array, atol=1e-6)
    assert manifest_of(folder)["up"] == "z"


def test_y_is_vertical_after_all(tmp_path: Path):
    text = warned(written(tmp_path, people()), tmp_path, skeleton="ntu-25", up="z")
    assert "the vertical axis of the bodies is y, but up is z" in text
    assert f"  fix: set {KEY}up=y\n" in text


def test_y_may_point_downwards(tmp_path: Path):
    source = written(tmp_path, [array * np.float32([1, -1, -1]) for array in people()])
    assert warned(source, tmp_path, skeleton="ntu-25") == ", warnings: 0\n"
    assert manifest_of(tmp_path / "out/original/mine")["up"] == "y"


def test_x_is_vertical(tmp_path: Path):
    source = written(tmp_path, [array[..., [1, 0, 2]] for array in people()])
    text = warned(source, tmp_path, skeleton="ntu-25")
    assert "the vertical axis of the bodies is x, but up is y" in text
    assert "  fix: rotate the coordinates until y is vertical\n" in text


def test_no_vertical_axis_without_legs(tmp_path: Path):
    """Someone at a desk: the names tell nothing about joints that are never seen."""
    arrays = people()
    for array in arrays:
        array[:, [0, *range(12, 20)]] = 0
    assert "vertical axis" not in warned(written(tmp_path, arrays), tmp_path, skeleton="ntu-25")


def test_up_is_for_three_dimensions(tmp_path: Path):
    with pytest.raises(UserError, match="up is 'z'; allowed: y, or z for unit metre or millimetre"):
        made(four(tmp_path), tmp_path / "out", unit="normalised", up="z")


# --- root-relative coordinates ---------------------------------------------------------------


@pytest.mark.parametrize("root", [0, 3, 12, 15], ids=["spine_base", "head", "left_hip", "foot"])
def test_the_reference_is_not_missing(tmp_path: Path, root: int):
    source = written(tmp_path, [array - array[:, root : root + 1] for array in people()])
    assert warned(source, tmp_path, skeleton="ntu-25") == ", warnings: 0\n"
    report = report_of(tmp_path)
    name = skeleton("ntu-25").joints[root]
    assert f"root-relative: {name} is 0 in every frame, coordinates are relative to it\n" in report
    assert "missing joints, percentage of frames: none\n" in report


def test_a_missing_joint_beside_the_reference(tmp_path: Path):
    arrays = [array - array[:, :1] for array in people()]
    for array in arrays:
        array[:, 3] = 0
    text = warned(written(tmp_path, arrays), tmp_path, skeleton="ntu-25")
    assert "joints missing in most frames: head in 100%\n" in text
    assert "root-relative: spine_base is" in report_of(tmp_path)


@pytest.mark.parametrize("unit", ["metre", "normalised"])
def test_a_joint_that_is_never_seen_is_no_reference(tmp_path: Path, unit: str):
    arrays = people()
    if unit == "normalised":
        arrays = [in_image(array) for array in arrays]
    for array in arrays:
        array[:, 3] = 0
    text = warned(written(tmp_path, arrays), tmp_path, skeleton="ntu-25", unit=unit)
    assert "joints missing in most frames: head in 100%\n" in text
    assert "root-relative" not in report_of(tmp_path)


def test_the_order_of_root_relative_joints(tmp_path: Path):
    arrays = [array - array[:, :1] for array in people("kinect-sdk-20")]
    text = warned(written(tmp_path, arrays), tmp_path, skeleton="kinect-20")
    assert "in the order of kinect-sdk-20" in text


# --- single clips ----------------------------------------------------------------------------


def test_frames_without_a_person(tmp_path: Path):
    arrays, rows = four_clips()
    arrays["train0.npy"][[1, 5]] = 0
    arrays["test1.npy"][3:] = 0
    text = warned(write_folder(tmp_path / "mine", arrays, rows), tmp_path)
    assert "WARNING: 2 clips contain frames without a person, 7 in all\n" in text
    assert "  clips: test1.npy: 5 of 8, train0.npy: 2 of 8\n" in text


def test_frozen_clips(tmp_path: Path):
    text = warned(with_one(tmp_path, np.repeat(body(9)[:1], 8, axis=0)), tmp_path)
    assert "WARNING: 1 clips are frozen: no joint moves in any frame\n  clips: odd.npy\n" in text


@pytest.mark.parametrize(("length", "is_odd"), [(52, True), (3, False), (1, True), (47, False)])
def test_lengths_within_a_class(tmp_path: Path, length: int, is_odd: bool):
    lengths = [9, 10, 10, 11, 10, length]
    rows = [(f"{n}.npy", 0, ("train", "test")[n % 2]) for n in range(6)]
    arrays = {row[0]: body(n, lengths[n]) for n, row in enumerate(rows)}
    # Another class, of usual clips as long as the odd one.
    rows += [(f"{n}.npy", 1, ("train", "test")[n % 2]) for n in range(6, 12)]
    arrays |= {f"{n}.npy": body(n, max(length, 2)) for n in range(6, 12)}
    source = write_folder(tmp_path / "mine", arrays, rows)
    text = warned(source, tmp_path, max_frame=64)
    said = "1 clips are more than 5 times as long or as short as usual in their class\n"
    assert (f"{said}  clips: 5.npy: {length}, usual 10\n" in text) == is_odd
    assert ("times as long" in text) == is_odd


def test_lengths_of_a_class_without_usual_length(tmp_path: Path):
    rows = [(f"{n}.npy", n // 6, ("train", "test")[n % 2]) for n in range(12)]
    lengths = 2 * [3, 5, 12, 25, 50, 60]
    arrays = {row[0]: body(n, lengths[n]) for n, row in enumerate(rows)}
    source = write_folder(tmp_path / "mine", arrays, rows)
    assert "times as long" not in warned(source, tmp_path, max_frame=64)
