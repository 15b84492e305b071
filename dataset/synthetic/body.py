"""A kinematic human body with the 25 joints of Kinect v2, for synthetic recordings.

Joint order is that of NTU RGB+D (Shahroudy et al., CVPR 2016), counted from 0. The body's
coordinate system has the axes of the sensor's: metres, right-handed, y up; the body faces -z, so
its left hand is on the -x side. Bone lengths are those that Kinect reports for adults (medians of
real NTU recordings).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

NUM_JOINT = 25
X, Y, Z = 0, 1, 2
SPINE_BASE, SPINE_MID, NECK, HEAD, SPINE_TOP = 0, 1, 2, 3, 20
LEFT_ARM, RIGHT_ARM = (4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24)  # shoulder .. hand, tip, thumb
LEFT_LEG, RIGHT_LEG = (12, 13, 14, 15), (16, 17, 18, 19)  # hip, knee, ankle, foot
LIMBS = (LEFT_ARM, RIGHT_ARM, LEFT_LEG, RIGHT_LEG)
HIPS = [LEFT_LEG[0], RIGHT_LEG[0]]

# The parent of each joint. The hand is the parent of both the tip and the thumb.
PARENTS = (-1, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11)
_PARENT_FIRST = (1, 20, *range(2, 20), *range(21, 25))
_ANKLE_HEIGHT = 0.08  # m

# Standing at rest: offset from the parent in metres (right, up, back); left limbs are mirrored.
_TRUNK = {1: (0, 0.28, 0), 20: (0, 0.21, 0), 2: (0, 0.072, 0), 3: (0, 0.135, -0.015)}
_RIGHT_ARM_BONES = (
    (0.155, -0.03, 0),
    *((0, -0.255, 0), (0, -0.235, 0), (0, -0.07, 0), (0, -0.08, 0), (0, -0.035, -0.045)),
)
_RIGHT_LEG_BONES = ((0.08, -0.02, 0), (0, -0.37, 0), (0, -0.36, 0), (0, -0.055, -0.11))


@dataclass(frozen=True)
class Subject:
    """One person. offsets (V, 3) in metres; tempo and vigour are factors around 1 for the speed and
    the size of movements; `habit` is the seed of the personal posture."""

    offsets: np.ndarray
    tempo: float
    vigour: float
    habit: int


def _mean_offsets() -> np.ndarray:
    offsets = np.zeros((NUM_JOINT, 3))
    for joint, offset in _TRUNK.items():
        offsets[joint] = offset
    offsets[list(RIGHT_ARM)] = _RIGHT_ARM_BONES
    offsets[list(RIGHT_LEG)] = _RIGHT_LEG_BONES
    for left, right in ((LEFT_ARM, RIGHT_ARM), (LEFT_LEG, RIGHT_LEG)):
        offsets[list(left)] = offsets[list(right)] * (-1, 1, 1)
    return offsets


@lru_cache(maxsize=256)
def make_subject(number: int, seed: int) -> Subject:
    """Person `number` of the population that `seed` defines; the same in every recording."""
    rng = np.random.default_rng([seed, 1, number])
    offsets = _mean_offsets() * rng.uniform(0.86, 1.13)
    shoulders = [LEFT_ARM[0], RIGHT_ARM[0]]
    arms, legs = [*LEFT_ARM[1:], *RIGHT_ARM[1:]], [*LEFT_LEG[1:], *RIGHT_LEG[1:]]
    for group in (shoulders, HIPS, arms, legs, list(_TRUNK)):
        offsets[group] *= rng.uniform(0.92, 1.08)
    offsets.flags.writeable = False  # cached: shared by all callers
    tempo, vigour = rng.uniform(0.82, 1.2), rng.uniform(0.82, 1.15)
    return Subject(offsets, tempo, vigour, habit=int(rng.integers(2**31)))


def joint_rotations(angles: np.ndarray) -> np.ndarray:
    """Angles about x, y, z in radians (..., 3) -> Rx @ Rz @ Ry (..., 3, 3).

    From right to left, for a limb that hangs down: rotate about its own length, raise sideways,
    swing forward.
    """
    cx, cy, cz = np.moveaxis(np.cos(angles), -1, 0)
    sx, sy, sz = np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [cz * cy, -sz, cz * sy],
        [cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy],
        [sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy],
    ]
    return np.ascontiguousarray(np.moveaxis(np.array(rows), (0, 1), (-2, -1)))


def rotate_about_y(points: np.ndarray, radians: np.ndarray | float) -> np.ndarray:
    """(T, V, 3) rotated about the vertical axis by one angle or (T,) angles; a positive angle
    rotates a person who faces -z to the left."""
    radians = np.reshape(radians, (-1, 1))
    cos, sin = np.cos(radians), np.sin(radians)
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack((cos * x + sin * z, y, cos * z - sin * x), axis=-1)


def forward_kinematics(offsets: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """offsets (V, 3), angles (T, V, 3) about x, y, z in radians -> positions (T, V, 3) in metres
    with the spine base at the origin, and the rotation (T, V, 3, 3) of the bone that ends in each
    joint. The angle of a joint rotates all of its descendants."""
    local = joint_rotations(angles)
    children = np.empty_like(local)  # rotation of the bones that start at a joint
    bones = np.empty_like(local)  # of the bone that ends in it
    positions = np.zeros_like(angles)
    children[:, 0], bones[:, 0] = local[:, 0], local[:, 0]
    for v in _PARENT_FIRST:
        p = PARENTS[v]
        bones[:, v] = children[:, p]
        children[:, v] = children[:, p] @ local[:, v]
        positions[:, v] = positions[:, p] + children[:, p] @ offsets[v]
    return positions, bones


def stand_on_floor(positions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Translate a body (T, V, 3) whose spine base is at the origin so that the supporting foot
    stays at its position on the floor y = 0.

    The translation is a mean over both ankles of the displacement to the position at rest; the
    lower ankle has the larger weight, so that support moves smoothly from foot to foot.
    """
    ankles = positions[:, [LEFT_LEG[2], RIGHT_LEG[2]]]  # (T, 2, 3)
    hips = offsets[HIPS]
    home = np.stack((hips[:, X] * 1.3, np.full(2, _ANKLE_HEIGHT), np.zeros(2)), axis=-1)  # (2, 3)
    weight = np.exp(-(ankles[..., Y] - ankles[..., Y].min(axis=1, keepdims=True)) / 0.03)
    weight /= weight.sum(axis=1, keepdims=True)
    shift = (weight[..., None] * (home - ankles)).sum(axis=1)  # (T, 3)
    return positions + shift[:, None]


def smooth_noise(
    rng: np.random.Generator, num_frame: int, shape: tuple[int, ...], every: float
) -> np.ndarray:
    """Smooth noise (T, *shape): unit-variance random values every `every` frames, with smooth
    interpolation in between."""
    num_knot = int(np.ceil(num_frame / every)) + 2
    knots = rng.standard_normal((num_knot, int(np.prod(shape))))
    time = (np.arange(num_frame) + rng.uniform(0, every)) / every
    left = time.astype(int)
    ease = ease_in_out(time - left)[:, None]
    blend = knots[left] * (1 - ease) + knots[left + 1] * ease
    return blend.reshape(num_frame, *shape)


def ease_in_out(fraction: np.ndarray) -> np.ndarray:
    """Minimum-jerk interpolation from 0 to 1, a model of human motion (Flash and Hogan 1985)."""
    return fraction**3 * (10 + fraction * (6 * fraction - 15))
