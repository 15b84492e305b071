"""Augmentation against plain loops written from its definition, invariants, and seeds."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from configs.checks import ConfigError
from configs.data import AugmentArgs, KineticsArgs
from dataset import augment


def recording(t: int = 11, v: int = 5, m: int = 2, seed: int = 0) -> np.ndarray:
    """(3, T, V, M) float32 with nothing missing."""
    return np.random.default_rng(seed).uniform(0.5, 2, (3, t, v, m)).astype(np.float32)


def numbered(t: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """(3, T, 2, 1) whose valid frames, start to stop, hold 1, 2, 3, ..."""
    clip = np.zeros((3, t, 2, 1), np.float32)
    count = (t if stop is None else stop) - start
    clip[:, start : start + count] = np.arange(1, count + 1)[:, None, None]
    return clip


def frames_of(clip: np.ndarray) -> list[int]:
    return clip[0, :, 0, 0].astype(int).tolist()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


EVERYTHING = AugmentArgs(
    random_shift=True,
    random_choose=9,
    random_move=True,
    random_crop=0.5,
    random_rotate=30,
    random_scale=0.2,
    jitter=0.01,
)


def test_shift_puts_the_valid_run_at_every_place() -> None:
    clip = numbered(6, start=1, stop=4)
    got = {tuple(frames_of(augment.random_shift(clip, rng(seed)))) for seed in range(60)}
    assert got == {(1, 2, 3, 0, 0, 0), (0, 1, 2, 3, 0, 0), (0, 0, 1, 2, 3, 0), (0, 0, 0, 1, 2, 3)}


def test_shift_keeps_gaps_inside_the_run() -> None:
    clip = numbered(6, start=0, stop=4)
    clip[:, 1] = 0
    got = {tuple(frames_of(augment.random_shift(clip, rng(seed)))) for seed in range(40)}
    assert got == {(1, 0, 3, 4, 0, 0), (0, 1, 0, 3, 4, 0), (0, 0, 1, 0, 3, 4)}


def test_choose_crops_at_every_place() -> None:
    got = {tuple(frames_of(augment.random_choose(numbered(6), 4, rng(seed)))) for seed in range(60)}
    assert got == {(1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 6)}


def test_choose_pads_at_every_place() -> None:
    got = {tuple(frames_of(augment.random_choose(numbered(2), 4, rng(seed)))) for seed in range(60)}
    assert got == {(1, 2, 0, 0), (0, 1, 2, 0), (0, 0, 1, 2)}
    clip = numbered(4)
    assert augment.random_choose(clip, 4, rng()) is clip


def moved_by_loops(clip: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Segments between nodes at 0 and T, values at each node drawn from the candidates."""
    _, t, v, m = clip.shape
    candidates = ((-10, -5, 0, 5, 10), (0.9, 1, 1.1), *((-0.2, -0.1, 0, 0.1, 0.2),) * 2)
    nodes = [generator.choice(c, 2) for c in candidates]
    out = clip.astype(np.float64)
    for f in range(t):
        angle, scale, dx, dy = (a + (b - a) * f / (t - 1) for a, b in nodes)
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for j in range(v):
            for p in range(m):
                x, y = clip[0, f, j, p], clip[1, f, j, p]
                out[0, f, j, p] = scale * (cos * x - sin * y) + dx
                out[1, f, j, p] = scale * (sin * x + cos * y) + dy
    return out


@pytest.mark.parametrize("seed", range(5))
def test_move_equals_plain_loops(seed: int) -> None:
    clip = recording(seed=seed)
    got = augment.random_move(clip, rng(seed))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, moved_by_loops(clip, rng(seed)), atol=1e-6)
    np.testing.assert_array_equal(got[2], clip[2])


def test_move_moves_zero_joints_as_the_public_code_does() -> None:
    clip = np.zeros((3, 8, 5, 2), np.float32)
    moved = [augment.random_move(clip, rng(seed)) for seed in range(10)]
    ends = {round(float(value), 3) for got in moved for value in got[:2, [0, -1]].flat}
    assert ends == {-0.2, -0.1, 0.0, 0.1, 0.2}


def test_crop_is_a_run_of_the_valid_frames() -> None:
    clip = numbered(20, start=4, stop=14)  # 1 to 10
    lengths, starts, ends = set(), set(), set()
    for seed in range(300):
        got = frames_of(augment.random_crop(clip, 0.65, rng(seed)))
        assert got == list(range(got[0], got[0] + len(got))) and got[0] >= 1 and got[-1] <= 10
        lengths.add(len(got))
        starts.add(got[0])
        ends.add(got[-1])
    assert lengths == {7, 8, 9, 10} and starts == {1, 2, 3, 4} and ends == {7, 8, 9, 10}


def test_crop_of_an_empty_clip_and_of_everything() -> None:
    empty = np.zeros((3, 5, 2, 1), np.float32)
    assert augment.random_crop(empty, 0.5, rng()) is empty
    assert frames_of(augment.random_crop(numbered(9, 2, 6), 1.0, rng())) == [1, 2, 3, 4]


def test_rotate_turns_about_the_vertical_axis() -> None:
    clip = recording()
    got = augment.random_rotate(clip, 30, rng(3))
    angle = math.radians(rng(3).uniform(-30, 30))
    x, y, z = clip.astype(np.float64)
    np.testing.assert_allclose(got[0], math.cos(angle) * x + math.sin(angle) * z, atol=1e-6)
    np.testing.assert_allclose(got[1], y, atol=1e-6)
    np.testing.assert_allclose(got[2], math.cos(angle) * z - math.sin(angle) * x, atol=1e-6)
    assert got.dtype == np.float32


def test_rotate_keeps_bone_lengths_and_zeros() -> None:
    clip = recording()
    clip[:, 3:, :, 1] = 0
    seen = set()
    for seed in range(200):
        got = augment.random_rotate(clip, 20, rng(seed))
        bones, before = (np.linalg.norm(c[:, :, 1:] - c[:, :, :-1], axis=0) for c in (got, clip))
        np.testing.assert_allclose(bones, before, rtol=1e-5)
        assert not got[:, 3:, :, 1].any()
        turn = np.angle(np.exp(1j * (np.arctan2(*got[[0, 2]]) - np.arctan2(*clip[[0, 2]]))))
        np.testing.assert_allclose(turn[:3], turn[0, 0, 0], atol=1e-5)
        seen.add(round(math.degrees(turn[0, 0, 0])))
    assert min(seen) in (-20, -19) and max(seen) in (19, 20) and len(seen) > 30


def test_scale_is_one_factor_an_axis() -> None:
    clip = recording()
    factors = []
    for seed in range(200):
        ratio = augment.random_scale(clip, 0.1, rng(seed)) / clip
        np.testing.assert_allclose(ratio, np.tile(ratio[:, :1, :1, :1], (1, 11, 5, 2)), rtol=1e-6)
        factors.append(ratio[:, 0, 0, 0])
    factors = np.array(factors)  # (200, 3)
    assert (factors.min(axis=0) >= 0.9).all() and (factors.min(axis=0) < 0.91).all()
    assert (factors.max(axis=0) <= 1.1).all() and (factors.max(axis=0) > 1.09).all()
    assert (abs(np.corrcoef(factors.T) - np.eye(3)) < 0.3).all()  # drawn apart
    np.testing.assert_array_equal(augment.random_scale(clip, 0.1, rng(), num_axis=2)[2], clip[2])


def test_jitter_is_noise_of_that_deviation_on_joints_that_exist() -> None:
    clip = recording(t=300)
    clip[:, 10:20, 2, 0] = 0
    noise = augment.jitter(clip, 0.02, rng()) - clip
    there = clip.any(axis=0)
    assert not noise[:, ~there].any()
    assert abs(noise[:, there].std() - 0.02) < 5e-4 and abs(noise[:, there].mean()) < 1e-3
    assert np.unique(noise[:, there].round(6)).size > 1000  # not one shift for all
    np.testing.assert_array_equal(augment.jitter(clip, 0.02, rng(), num_axis=2)[2], clip[2])


def test_the_same_seed_gives_the_same_clip() -> None:
    clip = recording(t=15)
    original = clip.copy()
    first, again, other = (augment.augment(clip, EVERYTHING, 3, rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.allclose(first, other)
    np.testing.assert_array_equal(clip, original)
    assert first.dtype == np.float32


def test_all_off_changes_nothing_and_draws_nothing() -> None:
    clip, generator = recording(), rng(4)
    assert augment.augment(clip, AugmentArgs(), 3, generator) is clip
    assert generator.random() == rng(4).random()


def test_apply_goes_in_the_order_of_the_fields() -> None:
    clip = np.concatenate([recording(t=14), np.zeros((3, 4, 5, 2), np.float32)], axis=1)
    generator = rng(8)
    expected = augment.random_shift(clip, generator)
    expected = augment.random_choose(expected, 9, generator)
    expected = augment.random_move(expected, generator)
    expected = augment.random_crop(expected, 0.5, generator)
    expected = augment.random_rotate(expected, 30, generator)
    expected = augment.random_scale(expected, 0.2, generator)
    expected = augment.jitter(expected, 0.01, generator)
    np.testing.assert_array_equal(augment.augment(clip, EVERYTHING, 3, rng(8)), expected)


@pytest.mark.parametrize("name", [f.name for f in fields(AugmentArgs)])
def test_each_setting_switches_its_change_on_alone(name: str) -> None:
    clip = np.concatenate([recording(t=14), np.zeros((3, 4, 5, 2), np.float32)], axis=1)
    value = getattr(EVERYTHING, name)
    change = getattr(augment, name)
    settings = () if isinstance(value, bool) else (value,)
    got = augment.augment(clip, AugmentArgs(**{name: value}), 3, rng(2))
    np.testing.assert_array_equal(got, change(clip, *settings, rng(2)))
    assert got.shape != clip.shape or not np.array_equal(got, clip)


def test_scores_are_not_coordinates() -> None:
    clip = recording()
    got = augment.augment(clip, AugmentArgs(random_scale=0.2, jitter=0.05), 2, rng())
    np.testing.assert_array_equal(got[2], clip[2])
    assert (got[:2] != clip[:2]).all()
    with pytest.raises(ConfigError, match="random_rotate is 15, but these clips have 2 coord"):
        KineticsArgs(augment=AugmentArgs(random_rotate=15))


@pytest.mark.parametrize("seed", range(3))
def test_empty_clips_pass(seed: int) -> None:
    clip = np.zeros((3, 12, 5, 2), np.float32)
    args = AugmentArgs(
        random_shift=True, random_crop=0.5, random_rotate=10, random_scale=0.1, jitter=0.1
    )
    assert not augment.augment(clip, args, 3, rng(seed)).any()
