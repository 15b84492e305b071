"""Motion from scripts: beats -> curves of the degrees of freedom -> joints in world coordinates.

World coordinates: metres, y up from the floor, the performers around the origin; the middle camera
looks along +z, so a person with heading 0 faces it. Shape letters: T frame, V joint, K key pose,
D degree of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset.synthetic import body as human
from dataset.synthetic.actions import Action, Beats, Pose, Script
from dataset.synthetic.body import NUM_JOINT, Subject, X, Y, Z

FRAME_RATE = 30.0  # frames a second
_BLUR = np.array([0.08, 0.24, 0.36, 0.24, 0.08])  # over frames: no abrupt stop at a key pose
Rotations = tuple[tuple[int, int, float], ...]  # (joint, axis, share) of a degree of freedom


def _limb_freedoms() -> dict[str, Rotations]:
    freedoms: dict[str, Rotations] = {}
    for side, sign, arm, leg in zip("lr", (-1.0, 1.0), human.LIMBS[:2], human.LIMBS[2:]):
        (shoulder, elbow, wrist), (hip, knee, ankle) = arm[:3], leg[:3]
        freedoms[f"{side}_flex"] = ((shoulder, X, 1.0),)  # forward and up
        freedoms[f"{side}_abd"] = ((shoulder, Z, sign),)  # sideways and up
        freedoms[f"{side}_turn"] = ((shoulder, Y, sign),)  # about the upper arm, inwards
        freedoms[f"{side}_elbow"] = ((elbow, X, 1.0),)
        freedoms[f"{side}_wrist"] = ((wrist, X, 1.0),)
        # The ankle compensates the rotation of hip and knee, so that the sole stays level.
        freedoms[f"{side}_hip"] = ((hip, X, 1.0), (ankle, X, -1.0))
        freedoms[f"{side}_knee"] = ((knee, X, -1.0), (ankle, X, 1.0))
        freedoms[f"{side}_spread"] = ((hip, Z, sign),)
    return freedoms


# Degree of freedom -> the joint angles that it changes: (joint, axis, share).
FREEDOMS: dict[str, Rotations] = {
    # At the hips: the legs do not move.
    "lean": ((human.SPINE_BASE, X, -1.0), *((hip, X, 1.0) for hip in human.HIPS)),
    "bend": ((human.SPINE_MID, X, -0.6), (human.SPINE_TOP, X, -0.4)),
    "side": ((human.SPINE_MID, Z, 0.6), (human.SPINE_TOP, Z, 0.4)),
    "twist": ((human.SPINE_MID, Y, 0.6), (human.SPINE_TOP, Y, 0.4)),  # to the left
    "nod": ((human.NECK, X, -1.0),),
    "look": ((human.NECK, Y, 1.0),),  # to the left
    **_limb_freedoms(),
    # Of the whole body: rotation to the left, translation up, forward, to the right.
    **dict.fromkeys(("facing", "lift", "ahead", "aside"), ()),
}
_COLUMN = {name: column for column, name in enumerate(FREEDOMS)}
_MIRROR_SIGN = np.ones(len(FREEDOMS))
_MIRROR_SIGN[[_COLUMN[name] for name in ("side", "twist", "look", "facing", "aside")]] = -1
_MIRROR_COLUMN = [
    _COLUMN[{"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]] for name in FREEDOMS
]


def _vector(values: Pose, default: float | np.ndarray = 0.0) -> np.ndarray:
    """(D,) with `default` for degrees of freedom that `values` lacks; `both_` sets both sides."""
    vector = np.array(np.broadcast_to(default, len(FREEDOMS)), float)
    for name, value in values.items():
        side, _, rest = name.partition("_")
        for full in (f"l_{rest}", f"r_{rest}") if side == "both" else (name,):
            vector[_COLUMN[full]] = value
    return vector


def _angle_shares() -> np.ndarray:
    """(D, V*3): one degree of each degree of freedom -> radians about x, y, z at the joints."""
    shares = np.zeros((len(FREEDOMS), NUM_JOINT, 3))
    for name, parts in FREEDOMS.items():
        for joint, axis, share in parts:
            shares[_COLUMN[name], joint, axis] += np.deg2rad(share)
    return shares.reshape(len(FREEDOMS), -1)


_SHARES = _angle_shares()
_STANDING = _vector(
    {"bend": 5, "both_abd": 8, "both_turn": 22, "both_elbow": 18}
    | {"both_hip": 2, "both_knee": 4, "both_spread": 3}
)
# Standard deviations at rest: between people, and between clips of one person.
_HABIT = _vector(
    {"lean": 2, "bend": 3, "nod": 5}
    | {"both_abd": 3, "both_turn": 9, "both_elbow": 8, "both_spread": 2}
)
_MOOD = _vector(
    {"bend": 1.5, "look": 8, "both_flex": 5, "both_abd": 2}
    | {"both_turn": 8, "both_elbow": 10, "both_spread": 1.5}
)
# Standard deviations of involuntary motion.
_IDLE = _vector(
    {"lean": 0.8, "facing": 1.5, "lift": 0, "ahead": 0.6, "aside": 0.6}
    | {"both_flex": 2.5, "both_abd": 1.8, "both_turn": 3, "both_elbow": 3.5, "both_wrist": 7}
    | {"both_hip": 0.7, "both_knee": 0.8, "both_spread": 0.3},
    default=1.2,
)
# Exponent of the random amplitude factor: the angle of turning around does not vary.
_VARIES = _vector({"facing": 0.0}, default=1.0)


def _change(pose: Pose) -> np.ndarray:
    """Difference of a pose from standing, (D,); zero in what it does not name."""
    return _vector(pose, default=_STANDING) - _STANDING


@dataclass(frozen=True)
class Body:
    """positions (T, V, 3) in metres; rotations (T, V, 3, 3) of the bone that ends in each joint,
    relative to a person who stands upright and faces -z."""

    positions: np.ndarray
    rotations: np.ndarray

    def rotated(self, radians: np.ndarray | float) -> Body:
        """Rotated about the vertical axis through the origin, by one angle or by (T,) angles."""
        axes = np.broadcast_to(np.eye(3), (len(self.positions), 3, 3))
        rotation = human.rotate_about_y(axes, radians).swapaxes(1, 2)  # (T, 3, 3), acts on columns
        positions = human.rotate_about_y(self.positions, radians)
        return Body(positions, rotation[:, None] @ self.rotations)

    def moved(self, offset: np.ndarray) -> Body:
        """Translated by (3,), or by (T, 1, 3), metres."""
        return Body(self.positions + offset, self.rotations)


def perform(
    action: Action, performers: Sequence[Subject], num_frame: int, rng: np.random.Generator
) -> list[Body]:
    """The performers of `action` in world coordinates: one body, or two that face each other.

    performers: one, or two if the action has a partner. num_frame: T, at 30 frames/s.
    """
    lead = action.variants[int(rng.integers(len(action.variants)))]
    scripts = [lead] if action.partner is None else [lead, action.partner]
    duration = num_frame / FRAME_RATE
    tempo = performers[0].tempo * rng.lognormal(0, 0.07)
    loops = _count_loops(lead, duration * tempo)
    mirrored = rng.random() < action.mirrored
    num_beat = len(_unroll(lead, loops))
    stretch = rng.lognormal(0, 0.12, num_beat) / tempo
    start = rng.uniform(0, 1)
    bodies = []
    for script, performer in zip(scripts, performers):
        beats = _unroll(script, loops)
        times = _key_times(np.array([seconds for seconds, _ in beats]) * stretch, duration, start)
        poses = _key_poses(beats, performer, mirrored, rng)
        bodies.append(_embody(_curves(times, poses, num_frame, rng), performer.offsets))
    heading = np.deg2rad(rng.normal(0, 12))
    if len(bodies) == 2:
        bodies = _face_each_other(bodies[0], bodies[1], action.touch, swapped=rng.random() < 0.5)
    position = rng.normal(0, 1, 3) * (0.18, 0, 0.15)
    return [body.rotated(heading).moved(position) for body in bodies]


def stand_still(pose: Pose, offsets: np.ndarray, num_frame: int) -> Body:
    """A body with bones `offsets` (V, 3) that keeps one pose, at the origin of the world."""
    return _embody(np.tile(_STANDING + _change(pose), (num_frame, 1)), offsets)


def _duration(beats: Beats) -> float:
    return sum(seconds for seconds, _ in beats)


def _count_loops(script: Script, seconds: float) -> int:
    left = seconds - _duration(script.intro) - _duration(script.outro)
    return int(np.clip(left / _duration(script.loop), 1, script.max_loops))


def _unroll(script: Script, loops: int) -> Beats:
    return script.intro + script.loop * loops + script.outro


def _key_times(seconds: np.ndarray, duration: float, start: float) -> np.ndarray:
    """Lengths of K beats -> times (K + 1,) in seconds at which the key poses are reached; the first
    is the start of the action. Compressed if `duration` seconds are too few; `start` in [0, 1) is
    the fraction of the remaining time that precedes the action."""
    total = seconds.sum()
    scale = min(1.0, 0.95 * duration / total)
    times = np.concatenate(([0.0], np.cumsum(seconds * scale)))
    return times + start * (duration - total * scale)


def _key_poses(
    beats: Beats, performer: Subject, mirrored: bool, rng: np.random.Generator
) -> np.ndarray:
    """Poses (K + 1, D) of this performance, degrees or centimetres; the first is at rest."""
    size = len(FREEDOMS)
    personal = np.random.default_rng(performer.habit).standard_normal(size)
    rest = _STANDING + _HABIT * personal + _MOOD * rng.standard_normal(size)
    change = np.stack([np.zeros(size)] + [_change(pose) for _, pose in beats])
    if mirrored:
        change = change[:, _MIRROR_COLUMN] * _MIRROR_SIGN
    factor = performer.vigour * rng.lognormal(0, 0.06, size) * rng.lognormal(0, 0.04, change.shape)
    return rest + change * factor**_VARIES


def _curves(
    times: np.ndarray, poses: np.ndarray, num_frame: int, rng: np.random.Generator
) -> np.ndarray:
    """Key times (K + 1,) in seconds and poses (K + 1, D) -> degrees of freedom over time (T, D)."""
    now = np.arange(num_frame) / FRAME_RATE
    left = np.clip(np.searchsorted(times, now, side="right") - 1, 0, len(times) - 2)
    fraction = (now - times[left]) / (times[left + 1] - times[left])
    ease = human.ease_in_out(np.clip(fraction, 0, 1))[:, None]
    curves = poses[left] * (1 - ease) + poses[left + 1] * ease  # (T, D)
    padded = np.pad(curves, ((2, 2), (0, 0)), mode="edge")
    blurred = sum(w * padded[k : k + num_frame] for k, w in enumerate(_BLUR))
    return blurred + human.smooth_noise(rng, num_frame, (len(FREEDOMS),), every=16) * _IDLE


def _embody(curves: np.ndarray, offsets: np.ndarray) -> Body:
    """Degrees of freedom over time (T, D) -> body that starts at the origin of the world."""
    num_frame = len(curves)
    angles = (curves @ _SHARES).reshape(num_frame, NUM_JOINT, 3)
    positions, rotations = human.forward_kinematics(offsets, angles)
    body = Body(human.stand_on_floor(positions, offsets), rotations)
    path = curves[:, [_COLUMN["aside"], _COLUMN["lift"], _COLUMN["ahead"]]] * (0.01, 0.01, -0.01)
    return body.rotated(np.deg2rad(curves[:, _COLUMN["facing"]])).moved(path[:, None])


def _face_each_other(first: Body, second: Body, touch: str, swapped: bool) -> list[Body]:
    """Place two bodies opposite each other, across the view of the middle camera, at the distance
    at which the stretched-out hands of the first touch the second's right hand or chest."""
    hands, right = [human.LEFT_ARM[3], human.RIGHT_ARM[3]], human.RIGHT_ARM[3]
    gap = -first.positions[:, hands, Z].min()
    if touch == "hand":
        contact = first.positions[:, right, Z].argmin()
        gap -= second.positions[contact, right, Z]
        # The second body faces the other way, so the right hands touch if these sum to zero.
        error = first.positions[contact, right, X] + second.positions[contact, right, X]
        second = second.moved(np.array([-error, 0, 0]))
    else:
        gap += 0.1  # half the depth of a chest
    quarter = np.pi / 2 if swapped else -np.pi / 2
    side = np.array([np.sign(quarter) * gap / 2, 0, 0])
    return [first.rotated(quarter).moved(side), second.rotated(-quarter).moved(-side)]
