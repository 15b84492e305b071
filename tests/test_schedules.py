"""Learning-rate schedules: values, and the epochs that are evaluated."""

from __future__ import annotations

import math

import pytest

from scheduler.schedules import cosine, evaluates_after, stepped

COSINE = {"steps_per_epoch": 100, "max_epoch": 70, "warm_up": 10}


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.0), (500, 0.5), (999, 0.999), (1000, 1.0), (4000, 0.5), (7000, 0.0)],
)
def test_cosine_by_value(step: int, factor: float) -> None:
    assert cosine(step, **COSINE) == pytest.approx(factor, abs=1e-12)


def test_cosine_equals_the_published_run() -> None:
    """Rate stored in the released x-sub checkpoint after 69 epochs of 2505 steps."""
    factor = cosine(172_845, steps_per_epoch=2505, max_epoch=70, warm_up=10)
    assert 0.1 * factor == pytest.approx(6.852326227130834e-05, rel=1e-9)


def test_cosine_rises_then_falls() -> None:
    values = [cosine(n, **COSINE) for n in range(7001)]
    assert values[:1001] == sorted(values[:1001])
    assert values[1000:] == sorted(values[1000:], reverse=True)
    assert cosine(0, steps_per_epoch=3, max_epoch=2, warm_up=0) == 1.0


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 0.0), (5, 0.5), (10, 1.0), (19, 1.0), (20, 0.1), (49, 0.1), (50, 0.01)],
)
def test_steps_by_value(epoch: int, factor: float) -> None:
    got = stepped(epoch * 7, steps_per_epoch=7, warm_up=10, step_lr=(20, 50))
    assert math.isclose(got, factor, rel_tol=1e-12)


def test_evaluation_epochs() -> None:
    chosen = [e for e in range(1, 71) if evaluates_after(e, max_epoch=70, low_rate_from=60)]
    assert chosen == [*range(5, 61, 5), *range(61, 71)]
    assert evaluates_after(3, max_epoch=3, low_rate_from=50)
    assert not evaluates_after(2, max_epoch=3, low_rate_from=50)
