"""Random changes of training clips. NumPy only.

One clip is (C, T, V, M) float32; a joint that was not seen is zero in every channel. Functions
return a new clip, or the same one where nothing is to do, and draw only from the generator that
they are given: the same generator state gives the same clip. `random_choose`, `random_shift`,
`random_move` and `openpose_match` are those of ST-GCN (Yan et al., AAAI 2018; public code
`feeder/tools.py`).
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
    """The run of valid frames at another place, every place as likely; zeros around it."""
    t = clip.shape[1]
    start, stop = valid_frames(clip)
    offset = rng.integers(0, t - (stop - start), endpoint=True)
    return auto_padding(clip[:, start:stop], t, int(offset))


def random_choose(clip: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`size` frames: a random run of a longer clip; a shorter one at a random place among zeros.
    (C, T, V, M) -> (C, size, V, M)."""
    t = clip.shape[1]
    if t == size:
        return clip
    start = int(rng.integers(0, abs(t - size), endpoint=True))
    return auto_padding(clip, size, start) if t < size else clip[:, start : start + size]


def random_move(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x and y turned, scaled and moved as if the camera moved: each of angle, scale and offsets
    goes in a straight line from one random candidate at the first frame to another at the last.

    Joints that are zero move too, as in the public code, which the published accuracies were
    reached with. (Its number of segments is drawn from a list that holds only 1.)
    """
    t = clip.shape[1]

    def course(candidates: tuple[float, ...]) -> np.ndarray:
        return np.linspace(*rng.choice(candidates, 2), t)

    angle, scale = np.deg2rad(course(MOVE_ANGLES)), course(MOVE_SCALES)
    offset = np.stack([course(MOVE_OFFSETS), course(MOVE_OFFSETS)])  # (2, T)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])  # (2, 2, T)
    moved = clip.copy()
    moved[:2] = np.einsum("ijt,jtvm->itvm", matrix, clip[:2]) + offset[:, :, None, None]
    return moved


def random_crop(clip: np.ndarray, least: float, rng: np.random.Generator) -> np.ndarray:
    """A run of the valid frames, from `least` (above 0, up to 1) of them to all; every length,
    then every place, as likely. (C, T, V, M) -> (C, T', V, M). Followed by
    `resample`, this varies the speed too."""
    start, stop = valid_frames(clip)
    if start == stop:
        return clip
    length = stop - start
    size = int(rng.integers(math.ceil(least * length), length, endpoint=True))
    start += int(rng.integers(0, length - size, endpoint=True))
    return clip[:, start : start + size]


def random_rotate(clip: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Three coordinates turned about the vertical axis (y) by one angle of up to +-degrees, as if
    the camera stood elsewhere. About the sensor, where x, y and z are 0, so that zeros stay."""
    angle = math.radians(rng.uniform(-degrees, degrees))
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=clip.dtype)
    return (matrix @ clip.reshape(3, -1)).reshape(clip.shape)


def random_scale(
    clip: np.ndarray, share: float, rng: np.random.Generator, num_axis: int = 3
) -> np.ndarray:
    """Each coordinate axis times a factor of its own, 1 - share to 1 + share: a taller, broader or
    deeper person, a larger or smaller movement. num_axis: channels that are coordinates."""
    factors = rng.uniform(1 - share, 1 + share, num_axis).astype(clip.dtype)
    scaled = clip.copy()
    scaled[:num_axis] *= factors.reshape(-1, 1, 1, 1)
    return scaled


def jitter(
    clip: np.ndarray, deviation: float, rng: np.random.Generator, num_axis: int = 3
) -> np.ndarray:
    """Normal noise on every coordinate of every joint that exists. deviation: its standard
    deviation, in units of the coordinates. num_axis: channels that are coordinates."""
    noise = rng.standard_normal((num_axis, *clip.shape[1:]), dtype=np.float32)
    noisy = clip.copy()
    noisy[:num_axis] += np.float32(deviation) * noise * joint_exists(clip)
    return noisy


def augment(
    clip: np.ndarray, args: AugmentArgs, num_axis: int, rng: np.random.Generator
) -> np.ndarray:
    """The changes that the settings switch on, in this order, (C, T, V, M) -> (C, T', V, M). The
    argument is not modified; the result may be a view of it.

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
