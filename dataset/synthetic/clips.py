"""Clips of the synthetic people as arrays, for benchmarks and for trials of a model: as many frames
and persons as are wanted, without files between."""

from __future__ import annotations

import numpy as np

from dataset.synthetic.actions import ACTION_TABLE
from dataset.synthetic.body import NUM_JOINT, make_subject
from dataset.synthetic.motion import perform
from dataset.synthetic.sensor import sense, view
from errors import UserError

MAX_PERSON = 2  # of an action
SHORTEST = 30  # frames that a performance needs; less is cut from its beginning


def make_clips(
    shape: tuple[int, int, int, int], *, frames: int, persons: int, seed: int = 0
) -> np.ndarray:
    """Clips of `persons` people, real in their first `frames` frames and zero behind.

    shape: (N, T, V, M). Returns (N, 3, T, V, M) float32, metres as a camera sees them. A layout
    of other joints than NTU's 25 gets them in turn: good for speed, not for accuracy. Raises
    UserError for numbers that do not go together.
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
        bodies = perform(actions[number % len(actions)], cast, max(frames, SHORTEST), rng)
        for person, body in enumerate(bodies):
            fields = sense(view(body, 1, 2), rng, loses_joints=False)  # (T, V, 12)
            joints = fields[:frames, np.arange(v) % NUM_JOINT, :3].astype(np.float32)
            clips[number, :, :frames, :, person] = joints.transpose(2, 0, 1)
    return clips
