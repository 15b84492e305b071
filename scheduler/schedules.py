"""The learning rate as a factor of the base rate, and the epochs after which to evaluate, as in
EfficientGCN (TPAMI 2022, section 4.2 and public code). `step` counts all optimizer steps of a run
from 0; the warm-up starts at exactly 0, so the first step updates the momentum only."""

from __future__ import annotations

import math
from collections.abc import Sequence

EVAL_EVERY = 5  # epochs; every epoch once the rate is low
COSINE_TAIL = 10  # last epochs of a cosine schedule, all evaluated


def cosine(step: int, *, steps_per_epoch: int, max_epoch: int, warm_up: int) -> float:
    """Linear warm-up over `warm_up` epochs, then half a cosine down to 0 at the last step."""
    ramp, total = warm_up * steps_per_epoch, max_epoch * steps_per_epoch
    if step < ramp:
        return step / ramp
    return 0.5 * (math.cos(math.pi * (step - ramp) / (total - ramp)) + 1)


def stepped(step: int, *, steps_per_epoch: int, warm_up: int, step_lr: Sequence[int]) -> float:
    """Linear warm-up over `warm_up` epochs, then a factor of 0.1 at each epoch of `step_lr`."""
    ramp = warm_up * steps_per_epoch
    if step < ramp:
        return step / ramp
    epoch = step // steps_per_epoch
    return 0.1 ** sum(epoch >= milestone for milestone in step_lr)


def evaluates_after(epoch: int, *, max_epoch: int, low_rate_from: int) -> bool:
    """Whether to evaluate after `epoch` (from 1): after every fifth, after all beyond
    `low_rate_from`, and after the last."""
    return epoch % EVAL_EVERY == 0 or epoch > low_rate_from or epoch == max_epoch
