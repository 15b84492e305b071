"""Random augmentation of training clips. NumPy only.

One clip is (C, T, V, M) float32; a joint that was not detected is zero in every channel. Functions
return a new clip, or the same one if there is nothing to do, and draw only from the given
generator: the same generator state gives the same clip. `random_choose`, `random_shift` and
`random_move` are those of ST-GCN (Yan et al., AAAI 2018; public code `feeder/tools.py`).
"""

from __future__ import annotations

import math

import numpy as np

from configs.data import AugmentArgs
from dataset.padding import auto_padding, joint_exists, valid_frames

MOVE_ANGLES = (-10.0, -5.0, 0.0, 5.0, 10.0)  # degrees
MOVE_SCALES = (0.9, 1.0, 1.1)
MOVE_OFFSETS = (-0.2, -0.1, 0.0, 0.1, 0.2)  # in units of the coordinates


def random_shift(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The valid frames at a uniformly random position, with zeros around them."""
    t = clip.shape[1]
    start, stop = valid_frames(clip)
    offset = rng.integers(0, t - (stop - start), endpoint=True)
    return auto_padding(clip[:, start:stop], t, int(offset))


def random_choose(clip: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`size` frames: a random window of a longer clip; a shorter clip at a random position, padded
    with zeros. (C, T, V, M) -> (C, size, V, M)."""
    t = clip.shape[1]
    if t == size:
        return clip
    start = int(rng.integers(0, abs(t - size), endpoint=True))
    return auto_padding(clip, size, start) if t < size else clip[:, start : start + size]


def random_move(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x and y rotated, scaled and translated as if the camera moved: angle, scale and offsets are
    each interpolated linearly from a random candidate at the first frame to one at the last.

    Zero joints are transformed too, as in the public code that reached the published accuracies.
    (It draws its number of segments from a list that contains only 1.)
    """
    t = clip.shape[1]

    def course(candidates: tuple[float, ...]) -> np.ndarray:
        first, last = rng.choice(candidates, 2)
        return np.linspace(first, last, t)

    angle, scale = np.deg2rad(course(MOVE_ANGLES)), course(MOVE_SCALES)
    offset = np.stack([course(MOVE_OFFSETS), course(MOVE_OFFSETS)])  # (2, T)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])  # (2, 2, T)
    moved = clip.copy()
    moved[:2] = np.einsum("ijt,jtvm->itvm", matrix, clip[:2]) + offset[:, :, None, None]
    return moved


def random_crop(clip: np.ndarray, least: float, rng: np.random.Generator) -> np.ndarray:
    """A random window of the valid frames: a uniformly random length from the fraction `least`
    (above 0, up to 1) to all of them, at a uniformly random position. (C, T, V, M) ->
    (C, T', V, M). Followed by `resample`, this also varies the speed."""
    start, stop = valid_frames(clip)
    if start == stop:
        return clip
    length = stop - start
    size = int(rng.integers(math.ceil(least * length), length, endpoint=True))
    start += int(rng.integers(0, length - size, endpoint=True))
    return clip[:, start : start + size]


def random_rotate(clip: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Three coordinates rotated about the vertical axis (y) by one random angle of up to +-degrees,
    as if the camera were elsewhere. The axis passes through the origin, so zeros stay zero."""
    angle = math.radians(rng.uniform(-degrees, degrees))
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=clip.dtype)
    return (matrix @ clip.reshape(3, -1)).reshape(clip.shape)


def random_scale(
    clip: np.ndarray, fraction: float, rng: np.random.Generator, num_axis: int = 3
) -> np.ndarray:
    """Each coordinate axis scaled by its own random factor, 1 - fraction to 1 + fraction: varies
    body proportions and the size of movements. num_axis: channels that are coordinates."""
    factors = rng.uniform(1 - fraction, 1 + fraction, num_axis).astype(clip.dtype)
    scaled = clip.copy()
    scaled[:num_axis] *= factors.reshape(-1, 1, 1, 1)
    return scaled


def jitter(
    clip: np.ndarray, deviation: float, rng: np.random.Generator, num_axis: int = 3
) -> np.ndarray:
    """Gaussian noise on every coordinate of every joint that exists. deviation: its standard
    deviation, in units of the coordinates. num_axis: channels that are coordinates."""
    noise = rng.standard_normal((num_axis, *clip.shape[1:]), dtype=np.float32)
    noisy = clip.copy()
    noisy[:num_axis] += np.float32(deviation) * noise * joint_exists(clip)
    return noisy


def augment(
    clip: np.ndarray, args: AugmentArgs, num_axis: int, rng: np.random.Generator
) -> np.ndarray:
    """All enabled augmentations, in this order, (C, T, V, M) -> (C, T', V, M). The argument is not
    modified; the result may be a view of it.

    num_axis: channels that are coordinates, 2 for (x, y, score).
    """
    if args.random_shift:
        clip = random_shift(clip, rng)
    if args.random_choose:
        clip = random_choose(clip, args.random_choose, rng)
    if args.random_move:
        clip = random_move(clip, rng)
    if args.random_crop < 1:
        clip = random_crop(clip, args.random_crop, rng)
    if args.random_rotate:
        clip = random_rotate(clip, args.random_rotate, rng)
    if args.random_scale:
        clip = random_scale(clip, args.random_scale, rng, num_axis)
    if args.jitter:
        clip = jitter(clip, args.jitter, rng, num_axis)
    return clip
