"""Clips of the synthetic people as arrays, for benchmarks and as test input of a model, with any
number of frames and persons and without intermediate files."""

from __future__ import annotations

import numpy as np

from dataset.synthetic.actions import ACTION_TABLE
from dataset.synthetic.body import NUM_JOINT, make_subject
from dataset.synthetic.motion import perform
from dataset.synthetic.sensor import sense, view
from errors import UserError

MAX_PERSON = 2  # of an action
MIN_FRAMES = 30  # that a performance needs; a shorter clip is the beginning of one


def make_clips(
    shape: tuple[int, int, int, int], *, frames: int, persons: int, seed: int = 0
) -> np.ndarray:
    """Clips of `persons` people in the first `frames` frames, followed by zero padding.

    shape: (N, T, V, M). Returns (N, 3, T, V, M) float32, metres in the camera's coordinates. If V
    is not NTU's 25, joints are taken from those cyclically: suitable for measuring speed, not
    accuracy. Raises UserError for numbers that are out of range.
    """
    n, t, v, m = shape
    if not 1 <= persons <= min(m, MAX_PERSON) or not 1 <= frames <= t:
        raise UserError(
            f"{persons} persons in {frames} frames; allowed: 1 to {min(m, MAX_PERSON)} persons, "
            f"1 to {t} frames"
        )
    rng = np.random.default_rng([seed, 3])
    actions = [a for a in ACTION_TABLE if (a.partner is not None) == (persons == MAX_PERSON)]
    clips = np.zeros((n, 3, t, v, m), np.float32)
    for number in range(n):
        cast = [make_subject(2 * number + person + 1, seed) for person in range(persons)]
        bodies = perform(actions[number % len(actions)], cast, max(frames, MIN_FRAMES), rng)
        for person, body in enumerate(bodies):
            fields = sense(view(body, 1, 2), rng, loses_joints=False)  # (T, V, 12)
            joints = fields[:frames, np.arange(v) % NUM_JOINT, :3].astype(np.float32)
            clips[number, :, :frames, :, person] = joints.transpose(2, 0, 1)
    return clips
