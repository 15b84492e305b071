"""What a training run must remember to go on as if it had never stopped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import UserError
from safe_io import read_yaml
from training import checkpoint
from training.session import Session

_CURVE_KEYS = {
    *("epoch", "learning_rate", "train_loss", "train_accuracy", "eval_loss", "eval_accuracy")
}
_BEST_KEYS = {"acc_top1", "acc_top5", "cm", "epoch"}
_RESUME_KEYS = {"opt": dict, "epoch": int, "best_state": dict, "history": list, "config": str}


@dataclass
class Progress:
    """How far a training run is. epoch: epochs completed. best_state: of the best evaluation.
    history: a row of the curves an epoch."""

    epoch: int = 0
    best_state: dict[str, Any] = field(
        default_factory=lambda: {"acc_top1": 0.0, "acc_top5": 0.0, "cm": 0, "epoch": 0}
    )
    history: list[dict[str, Any]] = field(default_factory=list)


def save(
    path: Path, session: Session, progress: Progress, settings: str, scaler: Any | None
) -> None:
    """Write a checkpoint. settings: what a run that resumes it must have in common with this one,
    as YAML. scaler: of float16, or None."""
    content = {
        "model": checkpoint.weights_of(session.network),
        "opt": checkpoint.optimizer_state(session.network, session.optimizer),
        "scheduler": session.scheduler.state_dict(),
        "epoch": progress.epoch,
        "best_state": progress.best_state,
        "history": progress.history,
        "config": settings,
    }
    if scaler is not None:
        content["scaler"] = scaler.state_dict()
    checkpoint.save_checkpoint(path, content)


def restore(path: Path, session: Session, settings: str, scaler: Any | None) -> Progress:
    """Put a checkpoint's state into the session. Raises UserError where it is not one of ours, or
    of a run with other settings."""
    content = checkpoint.load_checkpoint(path)
    kinds = {**_RESUME_KEYS, **({} if scaler is None else {"scaler": dict})}
    lacking = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    rows, best = content.get("history"), content.get("best_state")
    if (
        lacking
        or not set(best) >= _BEST_KEYS
        or any(not isinstance(row, dict) or set(row) != _CURVE_KEYS for row in rows)
    ):
        raise UserError(
            f"{path}: not a checkpoint that a run can be resumed from (missing or odd: "
            f"{', '.join(lacking) or 'history or best_state'}); to start from its weights, "
            "leave out -r"
        )
    changed = different_keys(content["config"], settings)
    if changed:
        raise UserError(
            f"{path}: was trained with other settings of {', '.join(changed[:6])}; "
            f"resume with those of {path.parent / 'config.yaml'}"
        )
    checkpoint.load_weights(session.network, content["model"], source=path)
    checkpoint.load_optimizer_state(session.network, session.optimizer, content["opt"], source=path)
    if scaler is not None:
        scaler.load_state_dict(content["scaler"])
    session.scheduler.last_epoch = content["epoch"] * session.train.batch_sampler.num_steps
    session.scheduler.last_lr = session.scheduler.get_lr()
    logging.info("Resuming %s after epoch %d", path, content["epoch"])
    return Progress(content["epoch"], best, list(rows))


def different_keys(a: str, b: str) -> list[str]:
    """Full keys whose values differ between two configurations, given as YAML texts."""

    def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {prefix[:-1]: tree}
        pairs = [flat(value, f"{prefix}{key}.").items() for key, value in tree.items()]
        return dict(pair for items in pairs for pair in items)

    first, second = flat(read_yaml(a, "settings")), flat(read_yaml(b, "settings"))
    keys = sorted(set(first) | set(second))
    return [key for key in keys if first.get(key) != second.get(key)]
