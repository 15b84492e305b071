"""Pre-normalisation of a clip: the `transform` that the cross-view protocols train on.

It is that of 2s-AGCN (Shi et al., CVPR 2019; public code `data_gen/preprocess.py`), which the
public EfficientGCN code took over. There, loops over joints do some 70 clips a second; here
whole arrays are moved, to the same numbers within rounding.
"""

from __future__ import annotations

import math

import numpy as np

HIP, SPINE = 0, 1  # the bone between them goes upright
RIGHT_SHOULDER, LEFT_SHOULDER = 8, 4  # left to right, laid along x
X_AXIS, Z_AXIS = 0, 2
# Sums of absolute coordinates (or of a cross product) below this have no direction.
NO_DIRECTION = 1e-6


def transform(clip: np.ndarray) -> np.ndarray:
    """Fill, centre and turn one clip (C=3, T, V, M), NTU joints, metres; float32, a new array.

    1. Each person's frames are moved to the front where the first is empty, and the empty tail is
       filled by repeating them; gaps behind a first frame that is not empty stay.
    2. Joint 1 of person 0 becomes the origin of every frame, for all persons. Joints that are
       absent (all zeros) stay zeros, and so does an absent person.
    3. All persons are turned so that in frame 0 the hip-spine bone of person 0 lies on z, then so
       that its shoulders lie along x. The second turn moves the spine off z again: that is what
       published weights were trained on.
    """
    num_channel, num_frame, num_joint, num_person = clip.shape
    turned = np.zeros(clip.shape, np.float32)
    persons = [
        _fill_frames(np.ascontiguousarray(clip[..., m], np.float32)) for m in range(num_person)
    ]
    centre = persons[0][0][:, :, SPINE : SPINE + 1].copy()  # C, T, 1
    for positions, present in persons:  # in place, each (C, T, V) and (T, V)
        positions -= centre
        positions *= present
    rotation = _upright(persons[0][0][:, 0])
    for m, (positions, present) in enumerate(persons):
        if present.any():
            flat = rotation @ positions.reshape(num_channel, num_frame * num_joint)
            turned[..., m] = flat.reshape(num_channel, num_frame, num_joint)
    return turned


def _fill_frames(person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step 1 for one person (C, T, V): its own copy of the filled positions, and which joints
    (T, V) are present in them."""
    present = (person != 0).any(axis=0)
    there = np.flatnonzero(present.any(axis=1))
    if len(there) == 0:
        return person.copy(), present
    if there[0] == 0:
        there = np.arange(there[-1] + 1)  # gaps included
    order = np.resize(there, person.shape[1])  # repeats them to the full length
    return person[:, order], present[order]


def _upright(frame: np.ndarray) -> np.ndarray:
    """The rotation (3, 3), float32, that step 3 takes from person 0's frame 0: (C, V)."""
    upright = _rotation_onto(Z_AXIS, frame[:, SPINE] - frame[:, HIP])
    shoulders = (upright @ (frame[:, RIGHT_SHOULDER] - frame[:, LEFT_SHOULDER])).astype(np.float32)
    return (_rotation_onto(X_AXIS, shoulders) @ upright).astype(np.float32)


def _rotation_onto(axis: int, vector: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3), float64, of a float32 vector onto a coordinate axis.

    Identity where the vector is null or lies along the axis; along it backwards counts too, which
    the public code leaves unturned. Numbers instead of small arrays: ten times as fast.
    """
    i, j = (axis + 1) % 3, (axis + 2) % 3
    # The rotation axis k is vector x target, which has no component along the target.
    k_i, k_j = float(vector[j]), -float(vector[i])
    if abs(k_i) + abs(k_j) < NO_DIRECTION:
        return np.eye(3)
    # In float32 like the public code: near the axis this rounding decides the angle.
    cos = min(max(float(vector[axis] / np.sqrt(vector @ vector)), -1.0), 1.0)
    sin = math.sqrt((1 - cos) * (1 + cos))
    norm = math.hypot(k_i, k_j)
    k_i, k_j = k_i / norm, k_j / norm
    rotation = np.empty((3, 3))  # Rodrigues: cos I + sin [k]x + (1 - cos) k k'
    rotation[axis, axis] = cos
    rotation[i, i] = cos + (1 - cos) * k_i * k_i
    rotation[j, j] = cos + (1 - cos) * k_j * k_j
    rotation[i, j] = rotation[j, i] = (1 - cos) * k_i * k_j
    rotation[i, axis], rotation[axis, i] = sin * k_j, -sin * k_j
    rotation[axis, j], rotation[j, axis] = sin * k_i, -sin * k_i
    return rotation
