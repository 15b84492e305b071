"""Simulation of a Kinect v2 recording: three cameras, noise, lost joints, and the text of an NTU
`.skeleton` file.

Camera coordinates: metres, origin in the sensor, y up, z the depth. Format of the text: the number
of frames; for each frame the number of bodies; for each body a line of 10 fields, the number of
joints, and for each joint a line of 12 (position, pixel in the depth image, pixel in the colour
image, orientation w x y z, tracking state). Shape letters: T frame, V joint.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataset.synthetic import body as human
from dataset.synthetic.body import NUM_JOINT, X, Y, Z
from dataset.synthetic.motion import Body

CAMERAS = (1, 2, 3)
_YAW = {1: 0.0, 2: -45.0, 3: 45.0}  # degrees, around the performers
SETUPS = ((0.95, 3.2), (1.2, 3.5), (0.8, 2.9))  # height and distance of the middle camera, m
# Difference of each camera's height and distance from those of the middle camera, m.
_RELATIVE = {1: (0.0, 0.0), 2: (0.06, 0.15), 3: (-0.05, -0.1)}

TRACKED, INFERRED, LOST = 2, 1, 0
_LEAVES = (3, 15, 19, 21, 22, 23, 24)  # Kinect writes no orientation for these
# Standard deviation of a joint from frame to frame, metres at a depth of 3 m: small at the trunk,
# large at the fingers (measured in real NTU recordings).
_JITTER = np.full(NUM_JOINT, 0.0018)
_JITTER[[5, 9, 13, 17, 14, 18, 3]] = 0.003
_JITTER[[6, 10, 7, 11]] = 0.005
_JITTER[[15, 19]] = 0.007
_JITTER[[21, 22, 23, 24]] = 0.012
_INFERRED_ERROR = 0.03  # m, standard deviation of the error of an inferred joint

# Pixel = focal * x / z + offset / z + centre, fitted to real NTU recordings: depth u, v; colour
# u, v, whose camera is beside the depth sensor.
_FOCAL = np.array([366.4, -366.9, 1057.0, -1057.5])
_OFFSET = np.array([0.0, 0.0, 62.0, 2.0])
_CENTRE = np.array([256.4, 208.5, 955.5, 566.5])

_JOINT_FORMAT = " ".join(["%.7G"] * 11 + ["%d"])
_LEAF_FORMAT = " ".join(["%.7G"] * 7 + ["0 0 0 0", "%d"])
_BODY_FORMAT = "\n".join(
    ["%d 0 %d %d %d %d 0 %.7G %.7G 2", str(NUM_JOINT)]
    + [_LEAF_FORMAT if v in _LEAVES else _JOINT_FORMAT for v in range(NUM_JOINT)]
)
_LEAF_COLUMNS = np.array([12 * v + k for v in _LEAVES for k in range(7, 11)])


def view(body: Body, setup: int, camera: int) -> Body:
    """World -> coordinates of `camera` (1, 2 or 3) in `setup` (1, 2 or 3)."""
    height, distance = np.add(SETUPS[setup - 1], _RELATIVE[camera])
    tilt = np.arctan2(height - 0.75, distance) + 0.05  # the sensor points down at the waist
    body = body.rotated(np.deg2rad(_YAW[camera])).moved(np.array([0.0, -height, distance]))
    cos, sin = np.cos(tilt), np.sin(tilt)
    look_down = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    return Body(body.positions @ look_down.T, look_down @ body.rotations)


def sense(body: Body, rng: np.random.Generator, loses_joints: bool = True) -> np.ndarray:
    """A body in camera coordinates -> the 12 fields of each joint (T, V, 12), float64.

    loses_joints: whether joints are occasionally lost for some frames and written as zeros.
    """
    num_frame = len(body.positions)
    state = _tracking_states(body.positions, rng, loses_joints)
    bias = rng.normal(0, 0.006, (NUM_JOINT, 3))
    depth = body.positions[:, :, Z:].mean() / 3.0
    scale = (_JITTER * depth**2)[:, None]
    noise = bias + scale * rng.standard_normal((num_frame, NUM_JOINT, 3))
    noise += 1.5 * scale * human.smooth_noise(rng, num_frame, (NUM_JOINT, 3), every=10)
    error = _INFERRED_ERROR * human.smooth_noise(rng, num_frame, (NUM_JOINT, 3), every=12)
    noise += error * (state == INFERRED)[..., None]
    positions = body.positions + noise
    fields = np.empty((num_frame, NUM_JOINT, 12))
    fields[..., :3] = positions
    flat = positions[..., [X, Y, X, Y]]
    fields[..., 3:7] = (_FOCAL * flat + _OFFSET) / positions[..., Z:] + _CENTRE
    fields[..., 7:11] = _orientations(body.rotations)
    fields[..., 11] = state
    fields[state == LOST] = 0.0
    return fields + 0.0  # turns -0, which would be written as such, into 0


def _tracking_states(
    positions: np.ndarray, rng: np.random.Generator, loses_joints: bool
) -> np.ndarray:
    """(T, V) tracking state of each joint. A limb may be inferred for some frames, with a
    probability that rises with its distance behind the trunk; in every fifth body the end of a limb
    is lost for 1 to 5 frames."""
    num_frame = len(positions)
    state = np.full((num_frame, NUM_JOINT), TRACKED)
    trunk = positions[:, [human.SPINE_BASE, human.SPINE_MID, human.SPINE_TOP], Z].mean()
    for limb in human.LIMBS:
        behind = positions[:, limb, Z].mean() - trunk
        if rng.random() < np.clip(0.3 + 2.0 * behind, 0.1, 0.8):
            first, length = rng.integers(num_frame), rng.integers(6, num_frame)
            state[first : first + length, limb[rng.integers(1, 3) :]] = INFERRED
    if loses_joints and rng.random() < 0.2:
        limb = human.LIMBS[rng.integers(4)]
        first, length = rng.integers(num_frame), rng.integers(1, 6)
        state[first : first + length, limb[rng.integers(2, len(limb)) :]] = LOST
    return state


def _bone_frames() -> np.ndarray:
    """(V, 3, 3): axes of each bone of a person at rest, as Kinect defines them: y along the bone, z
    as close to forward as possible."""
    frames = np.empty((NUM_JOINT, 3, 3))
    along = np.tile([0.0, 1.0, 0.0], (NUM_JOINT, 1))
    along[[joint for limb in human.LIMBS for joint in limb[1:]]] = (0, -1, 0)
    along[[human.LEFT_ARM[0], human.LEFT_LEG[0]]] = (-1, 0, 0)
    along[[human.RIGHT_ARM[0], human.RIGHT_LEG[0]]] = (1, 0, 0)
    forward = np.array([0.0, 0.0, -1.0])
    frames[:, :, 0], frames[:, :, 1], frames[:, :, 2] = np.cross(along, forward), along, forward
    return frames


_BONE_FRAMES = _bone_frames()


def _orientations(rotations: np.ndarray) -> np.ndarray:
    """Rotations (T, V, 3, 3) of the bones -> unit quaternions w x y z (T, V, 4)."""
    m = rotations @ _BONE_FRAMES
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    sizes = np.stack((1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz), -1)
    quaternion = np.sqrt(np.maximum(sizes, 0)) / 2
    signs = np.stack(
        (m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]), -1
    )
    quaternion[..., 1:] = np.copysign(quaternion[..., 1:], signs)
    return quaternion


def body_text(fields: np.ndarray, body_id: int, rng: np.random.Generator) -> list[str]:
    """Joint fields (T, V, 12) -> the lines of one body, one string per frame, without a final line
    break."""
    num_frame = len(fields)
    spine = fields[:, human.SPINE_TOP, :3] - fields[:, human.SPINE_BASE, :3]
    lean = spine[:, [X, Z]] * (1, -1) / np.linalg.norm(spine, axis=1, keepdims=True)
    hands = rng.integers(0, 2, (num_frame // 20 + 1, 2)).repeat(20, axis=0)[:num_frame]
    rows = fields.reshape(num_frame, -1)  # (T, V, 12) -> (T, V*12)
    rows = np.delete(rows, _LEAF_COLUMNS, axis=1).tolist()
    head = np.concatenate((hands.repeat(2, axis=1), lean), axis=1).tolist()
    return [_BODY_FORMAT % (body_id, *info, *row) for info, row in zip(head, rows)]


def file_text(tracks: Sequence[Sequence[str]]) -> str:
    """Bodies, each with one string per frame ('' if it is not visible) and T frames -> the text of
    a `.skeleton` file."""
    lines = [str(len(tracks[0]))]
    for frame in zip(*tracks):
        seen = [text for text in frame if text]
        lines.append(str(len(seen)))
        lines.extend(seen)
    return "\n".join(lines) + "\n"
