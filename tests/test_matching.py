"""OpenPose persons joined into tracks, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from errors import UserError
from reader.kinetics.matching import openpose_match


def recording(t: int = 11, v: int = 5, m: int = 2, seed: int = 0) -> np.ndarray:
    """(3, T, V, M) float32 with nothing missing."""
    return np.random.default_rng(seed).uniform(0.5, 2, (3, t, v, m)).astype(np.float32)


def matched_by_loops(clip: np.ndarray) -> np.ndarray:
    """Greedy matching from frame to frame, person by person."""
    _, t, v, m = clip.shape
    tracks = [[p] for p in range(m)]
    for f in range(t - 1):
        free, chosen = list(range(m)), {}
        for p in sorted(range(m), key=lambda p: -clip[2, f, :, p].sum()):
            far = [((clip[:2, f + 1, :, q] - clip[:2, f, :, p]) ** 2).sum() for q in free]
            chosen[p] = free.pop(int(np.argmin(far)))
        for track in tracks:
            track.append(chosen[track[-1]])
    joined = np.stack(
        [np.stack([clip[:, f, :, track[f]] for f in range(t)], axis=1) for track in tracks], axis=-1
    )
    best_first = sorted(range(m), key=lambda p: -joined[2, ..., p].astype(float).sum())
    return joined[..., best_first]


@pytest.mark.parametrize("persons", [1, 2, 3, 5])
def test_match_equals_plain_loops(persons: int) -> None:
    for seed in range(5):
        clip = recording(t=12, m=persons, seed=seed)
        got = openpose_match(clip)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, matched_by_loops(clip))


def test_match_untangles_persons_who_swap_slots() -> None:
    place = np.linspace(0, 0.3, 8)[:, None] + np.array([0.0, 5.0])  # (T, M): far apart
    clip = np.zeros((3, 8, 4, 2), np.float32)
    clip[:2] = place[:, None]
    clip[2, ..., 0], clip[2, ..., 1] = 0.4, 0.8
    tangled = clip.copy()
    tangled[:, 2::3] = tangled[:, 2::3, :, ::-1]
    np.testing.assert_array_equal(openpose_match(tangled), clip[..., ::-1])  # the surer one first
    np.testing.assert_array_equal(openpose_match(clip[:, :1]), clip[:, :1, :, ::-1])


def test_match_needs_scores() -> None:
    with pytest.raises(UserError, match="clip has 2 channels; openpose_match needs x, y and score"):
        openpose_match(np.zeros((2, 4, 18, 2), np.float32))
