"""Pre-normalisation of a clip: the `transform` setting, used for the cross-view protocols.

The method of 2s-AGCN (Shi et al., CVPR 2019; public code `data_gen/preprocess.py`), also used by
the public EfficientGCN code. That code loops over joints (about 70 clips/s); this one uses array
operations, with equal results within rounding.
"""

from __future__ import annotations

import math

import numpy as np

HIP, SPINE = 0, 1  # their bone becomes vertical
RIGHT_SHOULDER, LEFT_SHOULDER = 8, 4  # from left to right: the x axis
X_AXIS, Z_AXIS = 0, 2
# A vector whose cross product with the axis has a smaller sum of absolute values is not rotated.
NO_DIRECTION = 1e-6


def transform(clip: np.ndarray) -> np.ndarray:
    """Fill, centre and rotate one clip (C=3, T, V, M), NTU joints, metres; float32, a new array.

    1. For each person, the empty tail is filled by repeating the frames. If the first frame is
       empty, all empty frames are removed before that; otherwise gaps are kept.
    2. Joint 1 of person 0 becomes the origin of every frame, for all persons. Absent joints (all
       zeros) and absent persons stay zero.
    3. All persons are rotated so that in frame 0 the hip-spine bone of person 0 is parallel to z,
       then so that its shoulders are parallel to x. The second rotation moves the spine away from z
       again; published weights were trained on such data.
    """
    num_channel, num_frame, num_joint, num_person = clip.shape
    rotated = np.zeros(clip.shape, np.float32)
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
            rotated[..., m] = flat.reshape(num_channel, num_frame, num_joint)
    return rotated


def _fill_frames(person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step 1 for one person (C, T, V): a copy of the filled positions, and which joints (T, V) are
    present in them."""
    present = (person != 0).any(axis=0)
    frames = np.flatnonzero(present.any(axis=1))
    if len(frames) == 0:
        return person.copy(), present
    if frames[0] == 0:
        frames = np.arange(frames[-1] + 1)  # including gaps
    order = np.resize(frames, person.shape[1])  # repeated to the full length
    return person[:, order], present[order]


def _upright(frame: np.ndarray) -> np.ndarray:
    """The rotation (3, 3), float32, of step 3, from frame 0 of person 0: (C, V)."""
    upright = _rotation_onto(Z_AXIS, frame[:, SPINE] - frame[:, HIP])
    shoulders = (upright @ (frame[:, RIGHT_SHOULDER] - frame[:, LEFT_SHOULDER])).astype(np.float32)
    return (_rotation_onto(X_AXIS, shoulders) @ upright).astype(np.float32)


def _rotation_onto(axis: int, vector: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3), float64, of a float32 vector onto a coordinate axis.

    Identity if the vector is zero or parallel to the axis, in either direction, as in the public
    code. Scalars instead of small arrays make it ten times as fast.
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
