"""The state of a training run in a checkpoint: a resumed run continues bit for bit."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import UserError
from safe_io import read_yaml
from training import checkpoint
from training.step import TrainingStep
from training.tasks import Metrics


@dataclass
class Progress:
    """How far a training run is. best, best_epoch: the best evaluation and its epoch, 0 for none
    yet. epoch: epochs completed. history: a row of the curves for each."""

    best: Metrics
    best_epoch: int = 0
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def columns(metrics: Metrics) -> list[str]:
    """The keys of a row of the curves."""
    names = [f"{phase}_{name}" for phase in ("train", "eval") for name in metrics.curves]
    return ["epoch", "learning_rate", *names]


def curve_values(phase: str, metrics: Metrics) -> dict[str, float]:
    """The values of a row that one phase ('train' or 'eval') measures."""
    values = metrics.summary()
    return {f"{phase}_{name}": values[name] for name in metrics.curves}


def save(path: Path, step: TrainingStep, progress: Progress, settings: str) -> None:
    """Write a checkpoint. settings: what a run that resumes it must share with it, as YAML."""
    session = step.session
    content = {
        "model": checkpoint.weights_of(session.network),
        "opt": checkpoint.optimizer_state(session.network, session.optimizer),
        "scheduler": session.scheduler.state_dict(),
        "epoch": progress.epoch,
        "best_state": {**progress.best.state(), "epoch": progress.best_epoch},
        "history": progress.history,
        "config": settings,
    }
    if step.scaler is not None:
        content["scaler"] = step.scaler.state_dict()
    checkpoint.save_checkpoint(path, content)


def restore(path: Path, step: TrainingStep, settings: str) -> Progress:
    """Load a checkpoint into the session of a step. Raises UserError for a file that is not a
    checkpoint of a run, and for a run with other settings."""
    session, content = step.session, checkpoint.load_checkpoint(path)
    best = session.task.new_metrics()
    _check(path, content, settings, best, has_scaler=step.scaler is not None)
    try:
        best.load_state(content["best_state"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: best_state is invalid: {error}") from error
    checkpoint.load_weights(session.network, content["model"], source=path)
    checkpoint.load_optimizer_state(session.network, session.optimizer, content["opt"], source=path)
    if step.scaler is not None:
        step.scaler.load_state_dict(content["scaler"])
    session.scheduler.last_epoch = content["epoch"] * session.train.sampler.num_steps
    session.scheduler.last_lr = session.scheduler.get_lr()
    logging.info("Resuming %s after epoch %d", path, content["epoch"])
    best_epoch = content["best_state"]["epoch"]
    return Progress(best, best_epoch, content["epoch"], list(content["history"]))


def _check(
    path: Path, content: dict[str, Any], settings: str, metrics: Metrics, *, has_scaler: bool
) -> None:
    kinds = {"opt": dict, "epoch": int, "best_state": dict, "history": list, "config": str}
    if has_scaler:
        kinds["scaler"] = dict
    odd = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if not odd:
        if not content["best_state"].keys() >= {"epoch", *metrics.state()}:
            odd.append("best_state")
        keys = set(columns(metrics))
        if any(not isinstance(row, dict) or set(row) != keys for row in content["history"]):
            odd.append("history")
    if odd:
        raise UserError(
            f"{path}: not a checkpoint that a run can resume from (missing or invalid: "
            f"{', '.join(odd)}); to start from its weights, leave out -r"
        )
    changed = different_keys(content["config"], settings)
    if changed:
        raise UserError(
            f"{path}: was trained with other settings of {', '.join(changed[:6])}; "
            f"resume with those of {path.parent / 'config.yaml'}"
        )


def different_keys(a: str, b: str) -> list[str]:
    """Full keys whose values differ between two configurations, given as YAML texts."""

    def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {prefix[:-1]: tree}
        pairs = [flat(value, f"{prefix}{key}.").items() for key, value in tree.items()]
        return dict(pair for items in pairs for pair in items)

    first, second = (flat(read_yaml(text, "settings")) for text in (a, b))
    return [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
