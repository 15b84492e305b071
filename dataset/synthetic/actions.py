"""The actions of the synthetic recordings, as scripts.

A script is a sequence of beats. A beat is (seconds, pose): the time it takes to reach a pose. A
pose maps the degrees of freedom (`FREEDOMS` in dataset/synthetic/motion.py) that differ from the
pose at rest to their values: angles in degrees, `lift`, `ahead` and `aside` in centimetres. `l_`,
`r_` and `both_` select the arm or leg; a later name overrides an earlier one. Personal and random
variation (size, tempo, amplitude, timing, posture at rest, side) is added when the script is
performed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Pose = Mapping[str, float]
Beats = tuple[tuple[float, Pose], ...]


@dataclass(frozen=True)
class Script:
    """The motion of one performer: `intro` once, `loop` as often as time allows (at least once, at
    most `max_loops` times), `outro` once. The last pose is held."""

    loop: Beats
    intro: Beats = ()
    outro: Beats = ()
    max_loops: int = 1


@dataclass(frozen=True)
class Action:
    """variants: scripts, one of which is drawn at random. partner: the script of a second person,
    synchronised beat by beat. touch: what the first person's hands touch of the partner, 'hand' or
    'chest'. mirrored: probability of swapping left and right."""

    name: str
    variants: tuple[Script, ...]
    partner: Script | None = None
    touch: str = ""
    mirrored: float = 0.0


_REST: Pose = {}
_SQUAT = {"both_hip": 92, "both_knee": 108, "lean": 38, "bend": 8}
_CROUCH = {"both_hip": 48, "both_knee": 70, "both_flex": -35, "both_elbow": 25, "lean": 28}
_STEP_LEFT = {"l_hip": 62, "l_knee": 75, "side": 3, "aside": 3}
_STEP_RIGHT = {"r_hip": 62, "r_knee": 75, "side": -3, "aside": -3}
_MARCH_LEFT = {**_STEP_LEFT, "r_flex": 32, "r_elbow": 45, "l_flex": -22}
_MARCH_RIGHT = {**_STEP_RIGHT, "l_flex": 32, "l_elbow": 45, "r_flex": -22}
_SMALL_LEFT = {"l_hip": 30, "l_knee": 42}
_SMALL_RIGHT = {"r_hip": 30, "r_knee": 42}
_WAVE = {"r_abd": 78, "r_turn": -88, "r_elbow": 78}
_CLAP = {"both_flex": 52, "both_abd": 4, "both_turn": -4, "both_elbow": 62}
_SHAKE = {"r_flex": 42, "r_abd": -4, "r_turn": 14, "r_elbow": 42, "lean": 8, "twist": 8}
_WIND_UP = {"r_abd": 92, "r_turn": -75, "r_elbow": 105, "l_flex": 35, "l_elbow": 35, "twist": -32}
_RELEASE = {"r_flex": 112, "r_abd": 22, "r_elbow": 22, "twist": 22, "bend": 8, "lean": 8}
_FOLLOW = {"r_flex": 35, "r_abd": -12, "r_elbow": 25, "twist": 35, "bend": 16, "lean": 14}
_LOAD = {"both_flex": 38, "both_abd": 12, "both_turn": 8, "both_elbow": 112, "lean": -4}
_PUSHING = {"both_flex": 92, "both_abd": -2, "both_turn": 4, "both_elbow": 14}
_THRUST = {**_PUSHING, "lean": 16, "bend": 6, "ahead": 14}
_FALLING = {"both_flex": 38, "both_abd": 22, "both_elbow": 42, "l_hip": -6}
_HIT = {**_FALLING, "lean": -12, "bend": -8, "ahead": -20}
_BALANCING = {"both_flex": 22, "both_abd": 26, "both_elbow": 40}
_STAGGER = {**_SMALL_RIGHT, **_BALANCING, "lean": 8, "ahead": -36}

_WAVING = ((0.24, {**_WAVE, "r_elbow": 40}), (0.24, {**_WAVE, "r_elbow": 108}))
_CLAPPING = ((0.16, {**_CLAP, "both_turn": 38}), (0.18, _CLAP))
_SPREAD = ((0.6, {"both_abd": 162, "both_elbow": 12}), (0.15, {"both_abd": 160}), (0.6, _REST))
_REACH = ((0.6, {"both_flex": 162, "both_elbow": 12}), (0.15, {"both_flex": 160}), (0.6, _REST))
_SQUATTING = ((0.6, _SQUAT), (0.1, _SQUAT), (0.55, _REST))
_SQUATTING_ARMS = ((0.6, {**_SQUAT, "both_flex": 85, "both_elbow": 8}), (0.65, _REST))
_KICKING = (
    (0.32, {"r_hip": -28, "r_knee": 62, "l_flex": -15, "lean": 6}),
    (0.22, {"r_hip": 72, "r_knee": 8, "r_flex": -28, "l_flex": 32, "lean": -10}),
    (0.28, {"r_hip": 38, "r_knee": 52}),
    (0.3, _REST),
)
_JUMPING = (
    (0.36, _CROUCH),
    (0.2, {"both_flex": 50, "both_elbow": 25, "lift": 2}),
    (0.18, {"both_flex": 120, "both_abd": 15, "both_knee": 12, "lift": 24}),
    (0.18, {"both_flex": 75, "both_elbow": 30, "lift": 2}),
    (0.14, {"both_hip": 38, "both_knee": 55, "lean": 22}),
    (0.3, _REST),
)
_BOWING = (
    (0.6, {"lean": 48, "bend": 22, "nod": 10, "both_flex": 28}),
    (0.2, {"lean": 50, "bend": 22, "nod": 12, "both_flex": 30}),
    (0.6, _REST),
)
_THROWING = ((0.42, _WIND_UP), (0.22, _RELEASE), (0.22, _FOLLOW), (0.45, _REST))
_MARCHING = ((0.27, _MARCH_LEFT), (0.27, _MARCH_RIGHT))
_TURNING = (
    (0.3, {**_SMALL_LEFT, "facing": 50, "look": 25, "twist": 10}),
    (0.28, {**_SMALL_RIGHT, "facing": 95, "look": 20, "twist": 8}),
    (0.28, {**_SMALL_LEFT, "facing": 140, "look": 10}),
    (0.28, {**_SMALL_RIGHT, "facing": 176}),
    (0.25, {"facing": 180}),
)
_SHAKING = ((0.15, {**_SHAKE, "r_elbow": 54}), (0.15, {**_SHAKE, "r_elbow": 32}))
_SHAKE_HANDS = Script(_SHAKING, ((0.45, _SHAKE),), ((0.45, _REST),), max_loops=4)
_PUSH = Script(((0.4, _LOAD), (0.2, _THRUST), (0.25, _THRUST), (0.45, {"ahead": 10})))
_PUSHED = Script(((0.5, _REST), (0.25, _HIT), (0.28, _STAGGER), (0.27, {"ahead": -40})))

ACTION_TABLE = (
    Action("wave right hand", (Script(_WAVING, ((0.42, _WAVE),), ((0.42, _REST),), max_loops=4),)),
    Action("clap hands", (Script(_CLAPPING, ((0.36, _CLAP),), ((0.36, _REST),), max_loops=5),)),
    Action("raise both arms", (Script(_SPREAD), Script(_REACH))),
    Action("squat", (Script(_SQUATTING, max_loops=2), Script(_SQUATTING_ARMS, max_loops=2))),
    Action("kick", (Script(_KICKING),), mirrored=0.5),
    Action("jump up", (Script(_JUMPING, max_loops=2),)),
    Action("bow", (Script(_BOWING),)),
    Action("throw", (Script(_THROWING),), mirrored=0.25),
    Action("march in place", (Script(_MARCHING, (), ((0.25, _REST),), max_loops=4),), mirrored=0.5),
    Action("turn around", (Script(_TURNING),), mirrored=0.5),
    Action("shake hands", (_SHAKE_HANDS,), partner=_SHAKE_HANDS, touch="hand"),
    Action("push other person", (_PUSH,), partner=_PUSHED, touch="chest"),
)
