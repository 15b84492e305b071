"""The pre-normalisation against loops written from its description, and against golden arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reader.ntu.prenormalise import transform


def slow_transform(clip: np.ndarray) -> np.ndarray:
    """The three steps as loops over persons, frames and joints, in float64."""
    num_channel, num_frame, num_joint, num_person = clip.shape
    people = clip.transpose(3, 1, 2, 0).astype(np.float64)  # M, T, V, C
    for person in people:
        if person.any():
            fill(person)
    present = (people != 0).any(axis=-1)  # M, T, V
    centre = people[0, :, 1].copy()
    for m in range(num_person):
        for t in range(num_frame):
            for v in range(num_joint):
                if present[m, t, v]:
                    people[m, t, v] -= centre[t]
    for bottom, top, axis in ((0, 1, 2), (4, 8, 0)):
        vector = people[0, 0, top] - people[0, 0, bottom]
        for m in range(num_person):
            for t in range(num_frame):
                for v in range(num_joint):
                    people[m, t, v] = turn(people[m, t, v], vector, np.eye(3)[axis])
    return people.transpose(3, 1, 2, 0)


def fill(person: np.ndarray) -> None:
    """Frames of one person (T, V, C) to the front if need be; then its tail repeats them."""
    if not person[0].any():
        frames = [frame.copy() for frame in person if frame.any()]
        person[:] = 0
        for t, frame in enumerate(frames):
            person[t] = frame
    end = max(t for t, frame in enumerate(person) if frame.any()) + 1
    for t in range(end, len(person)):
        person[t] = person[t - end]


def turn(point: np.ndarray, vector: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rodrigues' formula for one point, by the rotation that takes vector to target."""
    axis = np.cross(vector, target)
    if np.abs(axis).sum() < 1e-6:
        return point
    axis /= np.linalg.norm(axis)
    angle = np.arccos(vector @ target / np.linalg.norm(vector))
    turned = point * np.cos(angle) + np.cross(axis, point) * np.sin(angle)
    return turned + axis * (axis @ point) * (1 - np.cos(angle))


def random_clip(seed: int, num_frame: int = 12, num_person: int = 2) -> np.ndarray:
    clip = np.random.default_rng(seed).normal(size=(3, num_frame, 25, num_person))
    clip[2] += 3
    return clip.astype(np.float32)


def with_gaps(kind: str) -> np.ndarray:
    clip = random_clip(1)
    if kind == "tail":
        clip[:, 7:] = 0
    elif kind == "different tails":
        clip[:, 7:, :, 0] = 0
        clip[:, 5:, :, 1] = 0
    elif kind == "inner gap":
        clip[:, 3:5] = 0
        clip[:, 8:] = 0
    elif kind == "empty start":
        clip[:, :2] = 0
        clip[:, 5] = 0
        clip[:, 9:] = 0
    elif kind == "late second person":
        clip[:, :4, :, 1] = 0
    elif kind == "no second person":
        clip[..., 1] = 0
        clip[:, 9:] = 0
    elif kind == "single frame":
        clip[:, 1:] = 0
    elif kind == "zero joints":
        clip[:, np.arange(12), np.arange(12) + 5] = 0
        clip[:, 2, 1] = 0  # the origin too
    elif kind == "no hip in the first frame":
        clip[:, 0, 0] = 0
    elif kind == "one zero coordinate":
        clip[0, :, 3] = 0
    return clip


@pytest.mark.parametrize(
    "kind",
    [
        *("whole", "tail", "different tails", "inner gap", "empty start", "late second person"),
        *("no second person", "single frame", "zero joints", "no hip in the first frame"),
        "one zero coordinate",
    ],
)
def test_equals_the_loops(kind: str):
    clip = with_gaps(kind)
    np.testing.assert_allclose(transform(clip), slow_transform(clip), atol=3e-6, rtol=0)


@pytest.mark.parametrize("num_person", [1, 3])
def test_takes_any_number_of_persons_and_frames(num_person: int):
    clip = random_clip(2, num_frame=5, num_person=num_person)
    np.testing.assert_allclose(transform(clip), slow_transform(clip), atol=3e-6, rtol=0)


def test_spine_is_the_origin_and_shoulders_lie_along_x():
    turned = transform(random_clip(3))
    assert not turned[:, :, 1, 0].any()
    x, y, z = turned[:, 0, 8, 0] - turned[:, 0, 4, 0]
    assert x > 0.1
    np.testing.assert_allclose((y, z), 0, atol=1e-6)


def test_upright_skeleton_is_only_moved():
    clip = np.zeros((3, 4, 25, 2), np.float32)
    joints = {0: (0, 0, -0.3), 1: (0, 0, 0), 4: (-0.2, 0, 0.4), 8: (0.2, 0, 0.4), 3: (0, 0, 0.6)}
    for joint, place in joints.items():
        clip[:, :, joint, 0] = np.add(place, (1, 2, 3)).reshape(3, 1)
    turned = transform(clip)
    for joint, place in joints.items():
        np.testing.assert_allclose(turned[:, 0, joint, 0], place, atol=1e-6)
    assert not turned[:, :, 20].any()  # an absent joint is not moved to minus the origin


def test_backward_bones_are_left_unturned():
    clip = np.zeros((3, 1, 25, 1), np.float32)
    clip[:, 0, 0, 0] = (1, 1, 3.5)  # hip above the spine
    clip[:, 0, 1, 0] = (1, 1, 3)
    clip[:, 0, 4, 0] = (1.5, 1, 3)  # left shoulder right of the other
    clip[:, 0, 8, 0] = (0.5, 1, 3)
    np.testing.assert_array_equal(transform(clip)[:, 0, 0, 0], (0, 0, 0.5))
    np.testing.assert_array_equal(transform(clip)[:, 0, 8, 0], (-0.5, 0, 0))


def test_distances_between_joints_and_persons_are_kept():
    clip = random_clip(4)
    turned = transform(clip)
    np.testing.assert_allclose(
        np.linalg.norm(turned[..., 5, 0] - turned[..., 9, 1], axis=0),
        np.linalg.norm(clip[..., 5, 0] - clip[..., 9, 1], axis=0),
        rtol=1e-5,
    )


def test_nobody_stays_nobody():
    turned = transform(np.zeros((3, 300, 25, 2), np.float32))
    assert turned.shape == (3, 300, 25, 2)
    assert not turned.any()


def test_the_input_is_left_alone():
    clip = with_gaps("tail")
    before = clip.copy()
    assert transform(clip).dtype == np.float32
    np.testing.assert_array_equal(clip, before)


def test_golden_samples(samples: Path):
    golden = np.load(samples / "golden" / "ntu7_generated.npz")
    for original, transformed in zip(golden["original"], golden["transformed"]):
        np.testing.assert_allclose(transform(original), transformed, atol=1e-5, rtol=0)
