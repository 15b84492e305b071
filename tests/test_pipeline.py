"""Preprocessing against plain loops written from its definition."""

from __future__ import annotations

import copy
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from dataset.padding import auto_padding, joint_exists, valid_frames, valid_length
from dataset.pipeline import ClipPipeline, centred, resampled

LAYOUT = SimpleNamespace(origin=2)  # all that preprocessing asks of a skeleton


def recording(t: int = 9, v: int = 4, m: int = 2, empty_tail: int = 0, seed: int = 0) -> np.ndarray:
    """(3, T + tail, V, M) with nothing missing in the first T frames."""
    clip = np.random.default_rng(seed).uniform(0.5, 2, (3, t + empty_tail, v, m))
    clip[:, t:] = 0
    return clip.astype(np.float32)


def resampled_by_loops(clip: np.ndarray, num_frame: int) -> np.ndarray:
    """Joint by joint, with exact places in time."""
    c, t, v, m = clip.shape
    length = max((f + 1 for f in range(t) if clip[:, f].any()), default=0)
    out = np.zeros((c, num_frame, v, m))
    for i in range(num_frame if length else 0):
        place = Fraction(i * (length - 1), max(num_frame - 1, 1))
        f = int(place)
        share = float(place - f)
        for j in range(v):
            for p in range(m):
                a, b = clip[:, f, j, p], clip[:, min(f + 1, length - 1), j, p]
                if a.any() and b.any():
                    out[:, i, j, p] = a * (1 - share) + b * share
                else:
                    out[:, i, j, p] = a if share < 0.5 else b
    return out


def test_valid_frames() -> None:
    clip = np.zeros((3, 7, 4, 2), np.float32)
    assert valid_frames(clip) == (0, 0) and valid_length(clip) == 0
    clip[2, 3, 1, 1] = -1e-3
    assert valid_frames(clip) == (3, 4) and valid_length(clip) == 4
    clip[0, 5, 0, 0] = 2
    assert valid_frames(clip) == (3, 6) and valid_length(clip) == 6


def test_joint_exists_where_any_channel_is_not_zero() -> None:
    clip = np.zeros((3, 2, 4, 2), np.float32)
    clip[1, 1, 3, 0] = 1
    assert np.argwhere(joint_exists(clip)).tolist() == [[1, 3, 0]]


def test_auto_padding() -> None:
    clip = recording(3)
    padded = auto_padding(clip, 7, 2)
    assert padded.shape == (3, 7, 4, 2) and padded.dtype == np.float32
    np.testing.assert_array_equal(padded[:, 2:5], clip)
    assert not padded[:, :2].any() and not padded[:, 5:].any()
    np.testing.assert_array_equal(auto_padding(clip, 7)[:, :3], clip)
    assert auto_padding(clip, 3) is clip and auto_padding(clip, 2) is clip


@pytest.mark.parametrize("num_frame", [1, 2, 5, 9, 13, 40])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_resample_equals_plain_loops(length: int, num_frame: int) -> None:
    clip = recording(length, empty_tail=3)
    clip[:, : length // 2, :, 1] = 0  # the second person comes later
    clip[:, length // 3, 0, 0] = 0  # a joint is missing once
    clip[:, length // 2 :: 2, 3] = 0  # another in every second frame
    got = resampled(clip, num_frame)
    assert got.shape == (3, num_frame, 4, 2) and got.dtype == np.float32
    np.testing.assert_allclose(got, resampled_by_loops(clip, num_frame), atol=1e-6)


def test_resample_is_exact_on_frames_that_it_hits() -> None:
    clip = recording(7, empty_tail=5)
    np.testing.assert_array_equal(resampled(clip, 7), clip[:, :7])
    np.testing.assert_array_equal(resampled(clip, 13)[:, ::2], clip[:, :7])
    np.testing.assert_array_equal(resampled(clip, 4), clip[:, :7:2])
    np.testing.assert_array_equal(resampled(recording(1), 5), recording(1).repeat(5, axis=1))


def test_resampled_motion_at_constant_speed_stays_at_constant_speed() -> None:
    time = np.arange(1, 61, dtype=np.float32)
    clip = np.tile(time[None, :, None, None], (3, 1, 4, 1))
    np.testing.assert_allclose(
        resampled(clip, 32)[0, :, 0, 0], np.linspace(1, 60, 32, dtype=np.float32), rtol=1e-6
    )


def test_resample_never_mixes_a_missing_joint_with_a_real_one() -> None:
    clip = np.full((3, 20, 4, 2), 5, np.float32)
    clip[:, 10:, :, 1] = 0  # the second person leaves
    clip[:, 4, 2, 0] = 0  # a joint drops out for one frame
    for num_frame in (7, 33, 64):
        got = resampled(clip, num_frame)
        assert ((got == 0) | (abs(got - 5) < 1e-5)).all()
        there = joint_exists(got)
        share = there[:, 0, 1].mean()  # it leaves half way, as in the source
        assert abs(share - 0.5) < 1 / num_frame
        assert there[:, 0, 0].all() and not there[-1, :, 1].any()


def test_empty_clip() -> None:
    clip = np.zeros((3, 8, 4, 2), np.float32)
    np.testing.assert_array_equal(resampled(clip, 5), clip[:, :5])
    assert resampled(clip, 12).shape == (3, 12, 4, 2) and not resampled(clip, 12).any()
    assert not centred(clip, 2).any()
    for flags in ((False, False), (True, True)):
        got = ClipPipeline("J", 6, *flags).prepare(clip, LAYOUT)
        assert got.shape == (3, 6, 4, 2) and not got.any()


def test_centre_subtracts_the_first_origin_joint() -> None:
    clip = recording(5, empty_tail=2)
    clip[:, 0] = 0  # nobody in the first frame
    clip[:, :3, :, 1] = 0  # the second person comes later
    clip[:, 3, 0, 0] = 0  # a missing joint
    got = centred(clip, 2)
    place = clip[:, 1, 2, 0]
    for f in range(7):
        for j in range(4):
            for p in range(2):
                here = clip[:, f, j, p]
                expected = here - place if here.any() else np.zeros(3)
                np.testing.assert_array_equal(got[:, f, j, p], expected)
    assert (got[:, 1, 2, 0] == 0).all() and got[:, 2, 2, 0].any()  # only the first one is zero


def test_centre_takes_the_first_frame_and_person_whose_origin_joint_is_there() -> None:
    clip = recording(4)
    clip[:, 0, 2] = 0  # not in the first frame
    clip[:, 1, 2, 0] = 0  # in the second frame only the second person's
    got = centred(clip, 2)
    np.testing.assert_array_equal(got[:, 3, 1, 0], clip[:, 3, 1, 0] - clip[:, 1, 2, 1])
    clip[:, :, 2] = 0
    np.testing.assert_array_equal(centred(clip, 2), clip)  # nowhere: not moved


def test_centre_leaves_scores_alone() -> None:
    clip = recording(4)
    got = centred(clip, 1, num_axis=2)
    np.testing.assert_array_equal(got[2], clip[2])
    np.testing.assert_array_equal(got[:2, 3, 0, 1], clip[:2, 3, 0, 1] - clip[:2, 0, 1, 0])
    unseen = recording(4)
    unseen[:2, 0, 1, 0] = 0  # a score without a place is no place
    moved = centred(unseen, 1, num_axis=2)
    np.testing.assert_array_equal(moved[:2, 3, 0, 1], unseen[:2, 3, 0, 1] - unseen[:2, 0, 1, 1])


def test_centre_forgets_where_the_camera_stood() -> None:
    clip = recording(6)
    clip[:, 2, 0] = 0
    moved = clip + np.float32([1, -2, 3]).reshape(3, 1, 1, 1) * joint_exists(clip)
    np.testing.assert_allclose(centred(moved, 2), centred(clip, 2), atol=1e-6)


def test_preprocess_without_resampling_takes_the_first_frames_or_pads() -> None:
    clip = recording(9)
    np.testing.assert_array_equal(ClipPipeline("J", 4).prepare(clip, LAYOUT), clip[:, :4])
    longer = ClipPipeline("J", 12).prepare(clip, LAYOUT)
    np.testing.assert_array_equal(longer[:, :9], clip)
    assert longer.shape[1] == 12 and not longer[:, 9:].any()


def test_preprocess_resamples_then_centres() -> None:
    clip = recording(9, empty_tail=4)
    original = copy.deepcopy(clip)
    got = ClipPipeline("J", 16, resample=True, centre=True).prepare(clip, LAYOUT)
    np.testing.assert_array_equal(got, centred(resampled(clip, 16), 2))
    assert got.shape == (3, 16, 4, 2) and got.dtype == np.float32
    padded = ClipPipeline("J", 16, centre=True, num_axis=2).prepare(clip, LAYOUT)
    np.testing.assert_array_equal(padded[:, :9], centred(clip[:, :9], 2, num_axis=2))
    assert not padded[:, 9:].any()
    np.testing.assert_array_equal(clip, original)
