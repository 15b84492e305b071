"""A toy task trained with the real training loop, and the state of clip metrics in checkpoints."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

import configs
from errors import UserError
from initializer import Initializer
from processor import Processor
from training import run_state
from training.checkpoint import load_checkpoint, save_checkpoint
from training.run_state import Progress
from training.session import TrainingSession
from training.step import TrainingStep
from training.tasks import ClipMetrics, Metrics, Task

PARITY = [-1.0, 1.0]  # the target of even and of odd labels


class Margins(Metrics):
    """Mean squared error, and how often the sign is right."""

    primary = "sign"
    curves = {"error": None, "sign": (0, 1)}

    def __init__(self) -> None:
        self.sums = {"squares": np.zeros(1), "right": np.zeros(1, int), "count": np.zeros(1, int)}

    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        signs = np.take(PARITY, targets % 2)
        self.sums["squares"] += ((outputs[:, 0] - signs) ** 2).sum()
        self.sums["right"] += (outputs[:, 0] * signs > 0).sum()
        self.sums["count"] += len(targets)

    def summary(self) -> dict[str, float]:
        count = max(int(self.sums["count"][0]), 1)
        return {"error": self.sums["squares"][0] / count, "sign": self.sums["right"][0] / count}


class OddLabels(Task):
    """Whether a clip's label is odd, as the sign of the first output."""

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        return ((outputs[:, 0] - paddle.to_tensor(PARITY)[targets % 2]) ** 2).mean()

    def new_metrics(self) -> Margins:
        return Margins()


def toy_session(tiny_keys: list[str], **keys: Any) -> TrainingSession:
    config = configs.load("9001", {**configs.parse_set(tiny_keys[1:]), "no_progress_bar": True})
    session = Initializer(config).for_training(load_weights=False)
    return dataclasses.replace(session, task=OddLabels(), **keys)


def test_a_toy_task_trains_resumes_and_evaluates(
    tiny_keys: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Loss, curves, best epoch, checkpoint and log lines follow the task."""
    caplog.set_level("INFO")
    keys = [*tiny_keys, "scheduler_args.cosine.max_epoch=2"]
    session = toy_session(keys, evaluates_after=lambda epoch: epoch == 2)
    progress = Processor(session.config, tmp_path).train(session)

    columns = ["epoch", "learning_rate", "train_error", "train_sign", "eval_error", "eval_sign"]
    first, second = progress.history
    header, *rows = csv.reader((tmp_path / "curves.csv").open())
    assert header == list(first) == columns and len(rows) == 2
    assert first["eval_error"] is None and second["eval_error"] > 0
    assert progress.best_epoch == 2 and progress.best.score == second["eval_sign"]
    last = load_checkpoint(tmp_path / "last.pdparams")
    assert last["history"] == progress.history
    assert last["best_state"].keys() == {"squares", "right", "count", "epoch"}
    assert last["best_state"]["count"] == 24 and last["best_state"]["epoch"] == 2
    for line in ("Epoch: 1/2, Training error: ", "Evaluation error: ", "Best sign: "):
        assert line in caplog.text
    names = {path.name for path in tmp_path.iterdir() if path.suffix}
    assert names == {"curves.csv", "curves.png", "last.pdparams", "best.pdparams"}

    again = toy_session(keys)
    resumed = Processor(again.config, None).train(again, tmp_path / "last.pdparams")
    assert resumed.best.summary() == progress.best.summary()
    metrics = Processor(again.config, None).evaluate(again)
    assert metrics.summary() == pytest.approx(progress.best.summary(), rel=1e-6)


def test_the_highest_primary_metric_is_the_best(tiny_keys: list[str], tmp_path: Path) -> None:
    """The first of equal epochs stays; a higher value replaces it."""
    scores = iter([0.25, 0.75, 0.75, 0.5])

    class Scripted(Margins):
        def merge(self) -> None:
            if not paddle.is_grad_enabled():  # in an evaluation
                self.sums["right"] = self.sums["count"] * next(scores)

    class ScriptedTask(OddLabels):
        def new_metrics(self) -> Scripted:
            return Scripted()

    session = dataclasses.replace(toy_session(tiny_keys), task=ScriptedTask())
    progress = Processor(session.config, tmp_path).train(session)
    assert [row["eval_sign"] for row in progress.history] == [0.25, 0.75, 0.75, 0.5]
    assert progress.best_epoch == 2 == load_checkpoint(tmp_path / "best.pdparams")["epoch"]


def test_another_tasks_checkpoint_is_refused(tiny_keys: list[str], tmp_path: Path) -> None:
    session = toy_session([*tiny_keys, "scheduler_args.cosine.max_epoch=2"])
    Processor(session.config, tmp_path).train(session)
    clips = Initializer(session.config).for_training(load_weights=False)
    with pytest.raises(UserError, match="invalid: best_state, history"):
        Processor(session.config, None).train(clips, tmp_path / "last.pdparams")


def test_the_state_of_clip_metrics() -> None:
    """The keys of the public Paddle port, exact counts back; a run without an evaluation yet
    stores 0 for the matrix."""
    rng = np.random.RandomState(0)
    metrics = ClipMetrics(list("abcdefg"))
    empty = metrics.state()
    assert (empty["acc_top1"], empty["acc_top5"], int(np.sum(empty["cm"]))) == (0, 0, 0)
    metrics.add(rng.standard_normal((97, 7)).astype(np.float32), rng.randint(0, 7, 97))
    state = metrics.state()
    assert list(state) == ["acc_top1", "acc_top5", "cm"] and state["cm"].dtype == np.int64
    other = ClipMetrics(list("abcdefg"))
    other.load_state(state)
    assert (other.score, other.num_top5) == (state["acc_top1"], metrics.num_top5)
    np.testing.assert_array_equal(other.matrix, metrics.matrix)
    other.load_state({"acc_top1": 0.0, "acc_top5": 0.0, "cm": 0})
    assert other.matrix.shape == (7, 7) and other.num_sample == other.score == 0


def test_a_damaged_best_state_is_a_user_error(tiny_keys: list[str], tmp_path: Path) -> None:
    config = configs.load("9001", configs.parse_set([*tiny_keys[1:], "no_progress_bar=true"]))
    session = Initializer(config).for_training(load_weights=False)
    progress = Progress(session.task.new_metrics())
    run_state.save(tmp_path / "w.pdparams", TrainingStep(session), progress)
    content = load_checkpoint(tmp_path / "w.pdparams")
    content["best_state"]["cm"] = np.zeros((3, 5), np.int64)
    save_checkpoint(tmp_path / "w.pdparams", content)
    with pytest.raises(UserError, match="w.pdparams: best_state is invalid"):
        run_state.restore(tmp_path / "w.pdparams", TrainingStep(session))
