"""Clips of synthetic people as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from dataset.synthetic.clips import make_clips
from errors import UserError


@pytest.mark.parametrize("persons", [1, 2])
@pytest.mark.parametrize(("frames", "joints"), [(80, 25), (1, 17), (100, 33)])
def test_frames_and_persons_as_wanted(frames: int, joints: int, persons: int) -> None:
    clips = make_clips((3, 100, joints, 2), frames=frames, persons=persons)
    assert clips.shape == (3, 3, 100, joints, 2) and clips.dtype == np.float32
    there = clips.any(axis=1)  # (N, T, V, M)
    assert there[:, :frames, :, :persons].all() and not there[:, frames:].any()
    assert there.any(axis=(1, 2)).sum(axis=1).tolist() == [persons] * 3
    head, foot = clips[:, 1, :frames, 3, 0], clips[:, 1, :frames, 15, 0]
    assert (head - foot > 1).all() and (head - foot < 2.2).all(), "metres, upright"
    assert (clips[0] != clips[1]).any()
    np.testing.assert_array_equal(
        clips, make_clips((3, 100, joints, 2), frames=frames, persons=persons)
    )


@pytest.mark.parametrize(("frames", "persons"), [(0, 1), (11, 1), (5, 0), (5, 3)])
def test_impossible_numbers_are_refused(frames: int, persons: int) -> None:
    with pytest.raises(UserError, match="allowed: 1 to 2 persons, 1 to 10 frames"):
        make_clips((1, 10, 25, 4), frames=frames, persons=persons)
