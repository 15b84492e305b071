"""Features against golden arrays and against plain loops written from the definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset.features import branch_channels, clip_tensor, person_exists
from dataset.skeletons import skeleton
from errors import UserError

NTU_25 = skeleton("ntu-25")


def by_loops(clip: np.ndarray, layout) -> dict[str, np.ndarray]:
    """J, V, B of (3, T, V, M), each (6, T, V, M), straight from the definition."""
    c, t, v, m = clip.shape
    joint, velocity, bone = (np.zeros((6, t, v, m)) for _ in range(3))
    for f in range(t):
        for j in range(v):
            for p in range(m):
                here = clip[:, f, j, p]
                joint[:3, f, j, p] = here
                joint[3:, f, j, p] = here - clip[:, f, layout.origin, p]
                if f < t - 2:
                    velocity[:3, f, j, p] = clip[:, f + 1, j, p] - here
                    velocity[3:, f, j, p] = clip[:, f + 2, j, p] - here
                b = here - clip[:, f, layout.parents[j], p]
                bone[:3, f, j, p] = b
                bone[3:, f, j, p] = np.arccos(b / (np.linalg.norm(b.astype(float)) + 1e-4))
    return {"J": joint, "V": velocity, "B": bone}


@pytest.mark.parametrize("layout", [NTU_25, skeleton("openpose-18"), skeleton("coco-17")])
@pytest.mark.parametrize("inputs", ["J", "V", "B", "JB", "VJ", "JVB"])
def test_equal_plain_loops_in_fixed_order(layout, inputs: str) -> None:
    clip = np.random.RandomState(3).standard_normal((3, 7, layout.num_joint, 2)).astype(np.float32)
    expected = by_loops(clip, layout)
    stacked = np.concatenate([expected[i] for i in "JVB" if i in inputs])  # (I*C, T, V, M)
    got = clip_tensor(clip, layout, inputs)
    assert got.dtype == np.float32 and got.shape == (2 * layout.num_joint, len(stacked), 7)
    by_person = got.reshape(2, layout.num_joint, len(stacked), 7)  # (M, V, I*C, T)
    np.testing.assert_allclose(by_person.transpose(2, 3, 1, 0), stacked, atol=1e-6)


def test_equals_golden_features(samples: Path) -> None:
    clip = np.load(samples / "golden/ntu7_generated.npz")["original"][0]
    golden = np.load(samples / "golden/ntu7_features_sample0.npz")
    got = clip_tensor(clip, NTU_25, "JVB", 288).reshape(2, 25, 3, 6, 288)  # (M, V, I, C, T)
    for index, name in enumerate(("joint", "velocity", "bone")):
        np.testing.assert_array_equal(got[:, :, index].transpose(2, 3, 1, 0), golden[name])


def test_absent_person_is_constant() -> None:
    tensor = clip_tensor(np.zeros((3, 5, 25, 1), np.float32), NTU_25, "JVB").reshape(25, 3, 6, 5)
    assert (tensor[:, :2] == 0).all() and (tensor[:, 2, :3] == 0).all()
    np.testing.assert_allclose(tensor[:, 2, 3:], np.pi / 2)


def test_raw_input_and_num_frame() -> None:
    clip = np.arange(3 * 6 * 25 * 2, dtype=np.float32).reshape(3, 6, 25, 2)
    tensor = clip_tensor(clip, NTU_25, "X", num_frame=4)
    assert tensor.shape == (50, 3, 4)
    assert tensor[25 + 7, 1, 2] == clip[1, 2, 7, 1]  # M slow: index m * V + v


def test_huge_coordinates_stay_finite() -> None:
    clip = np.full((3, 4, 25, 1), 1e6, np.float32)
    clip[:, :, 3] = -1e6
    assert np.isfinite(clip_tensor(clip, NTU_25, "JVB")).all()


def test_branch_channels() -> None:
    assert branch_channels("BJ") == [6, 6] and branch_channels("X") == [3]
    with pytest.raises(UserError, match="letters of JVBX"):
        branch_channels("JQ")


@pytest.mark.parametrize(
    ("shape", "layout", "inputs", "message"),
    [
        ((3, 5, 24, 1), NTU_25, "J", r"\(3, T, 25, M\)"),
        ((2, 5, 25, 1), NTU_25, "J", r"\(3, T, 25, M\)"),
        ((3, 2, 25, 1), NTU_25, "V", "3 or more"),
        ((3, 5, 24, 1), skeleton("ntu_edge-24"), "B", "no bone parents"),
    ],
)
def test_wrong_clips_are_refused(shape, layout, inputs: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        clip_tensor(np.zeros(shape, np.float32), layout, inputs)


def test_person_exists() -> None:
    clips = np.zeros((2, 3, 4, 25, 2), np.float32)
    clips[0, 2, 3, 24, 1] = -0.5
    np.testing.assert_array_equal(person_exists(clips), [[False, True], [False, False]])
