"""The state of a training run in a checkpoint: a resumed run continues bit for bit."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

import configs
from configs.schema import Config
from errors import UserError
from safe_io import read_yaml
from training import checkpoint, parallel
from training.checkpoint import compare_identity
from training.evaluation import DIVERGED
from training.session import TrainingSession
from training.step import TrainingStep
from training.tasks import Metrics

# Settings that may differ when a run is resumed: where it starts, what it shows, on which machine
# it runs. What files named here contain is part of the identity.
_NOT_TRAINING = {"name", "pretrained_path", "finetune", "accept", "work_dir", "no_progress_bar"}
_NOT_TRAINING |= {"log_every", "gpus", "cpu_setup", "num_workers", "eval_batch_size"}
_NOT_TRAINING |= {"on_bad_file", "root_folder", "source_path", "skeleton", "class_names"}
_NOT_TRAINING |= {"ntu60_path", "ntu120_path", "synthetic_path"}
_GROUPS = ("dataset_args.", "optimizer_args.", "scheduler_args.")  # one group of each is used


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


def save(path: Path, step: TrainingStep, progress: Progress) -> None:
    """Write a checkpoint. It says of its run: 'config', the settings as YAML, and 'identity', that
    of its weights and training clips as JSON. Raises UserError for values that are not finite."""
    session = step.session
    content = {
        "model": checkpoint.weights_of(session.network),
        "opt": checkpoint.optimizer_state(session.network, session.optimizer),
        "scheduler": session.scheduler.state_dict(),
        "epoch": progress.epoch,
        "best_state": {**progress.best.state(), "epoch": progress.best_epoch},
        "history": progress.history,
        "config": _settings(session.config),
        "identity": json.dumps(session.identity),
    }
    if step.scaler is not None:
        content["scaler"] = step.scaler.state_dict()
    _check_finite(content, progress.epoch, path.with_name("last.pdparams"))
    checkpoint.save_checkpoint(path, content)


def _check_finite(content: Mapping[str, Any], epoch: int, last: Path) -> None:
    """Raises UserError for weights or an optimizer state with NaN or infinity. Outputs do not show
    them: Paddle's relu of NaN is 0 on the CPU."""
    for part in ("model", "opt"):
        odd = [n for n, tensor in content[part].items() if not np.isfinite(tensor.numpy()).all()]
        if odd:
            kept = f"; {last} is the last finite checkpoint" if os.path.isfile(last) else ""
            raise UserError(
                f"epoch {epoch}: {odd[0]} and {len(odd) - 1} more of {len(content[part])} tensors "
                f"are not finite: {DIVERGED}{kept}"
            )


def restore(path: Path, step: TrainingStep) -> Progress:
    """Load a checkpoint into the session of a step. Raises UserError for a file that is not a
    checkpoint of a run, and for a run with other settings."""
    session, content = step.session, checkpoint.load_checkpoint(path)
    best = session.task.new_metrics()
    _check(path, content, best, has_scaler=step.scaler is not None)
    _check_settings(path, content, session)
    try:
        best.load_state(content["best_state"])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: best_state is invalid: {error}") from error
    state = checkpoint.fitting_optimizer_state(
        session.network, session.optimizer, content["opt"], source=path
    )
    checkpoint.load_weights(
        session.network, content["model"], source=path, accept=session.config.accept
    )
    session.optimizer.set_state_dict(state)
    if step.scaler is not None:
        step.scaler.load_state_dict(content["scaler"])
    session.scheduler.last_epoch = content["epoch"] * session.train.sampler.num_steps
    session.scheduler.last_lr = session.scheduler.get_lr()
    logging.info("Resuming %s after epoch %d", path, content["epoch"])
    best_epoch = content["best_state"]["epoch"]
    return Progress(best, best_epoch, content["epoch"], list(content["history"]))


def _check(path: Path, content: dict[str, Any], metrics: Metrics, *, has_scaler: bool) -> None:
    kinds = {"opt": dict, "epoch": int, "best_state": dict, "history": list, "config": str}
    if has_scaler:
        kinds["scaler"] = dict
    odd = [key for key, kind in kinds.items() if type(content.get(key)) is not kind]
    if not odd:
        best, epoch, keys = content["best_state"], content["epoch"], columns(metrics)
        best_epoch = best.get("epoch")
        if epoch != len(content["history"]):
            odd.append("epoch")
        if not best.keys() >= {"epoch", *metrics.state()} or best_epoch not in range(epoch + 1):
            odd.append("best_state")
        if not all(_is_row(row, keys, n) for n, row in enumerate(content["history"], 1)):
            odd.append("history")
    if odd:
        raise UserError(
            f"{path}: not a checkpoint that a run can resume from (missing or invalid: "
            f"{', '.join(odd)}); to start from its weights, leave out -r"
        )


def _is_row(row: Any, keys: Sequence[str], epoch: int) -> bool:
    """Whether a value of a file is the curves' row of an epoch."""
    return (
        isinstance(row, dict)
        and row.keys() == set(keys)
        and all(value is None or isinstance(value, Real) for value in row.values())
        and row["epoch"] == epoch
    )


def _check_settings(path: Path, content: dict[str, Any], session: TrainingSession) -> None:
    """Raises UserError where this run would not compute what the stored one would."""
    resumed = f"Resume with the settings of {path.parent / 'config.yaml'}"
    changed = different_keys(content["config"], session.config)
    if changed:
        raise UserError(
            f"{path}: was trained with other settings of {', '.join(changed[:6])}. {resumed}"
        )
    compare_identity(path, content, session.identity, fix=resumed, accept=session.config.accept)


def _settings(config: Config) -> str:
    return f"{configs.dump(config)}world_size: {parallel.world().size}\n"


def different_keys(stored: str, config: Config) -> list[str]:
    """Full keys of settings that change a training and whose values differ between a checkpoint's
    'config' and a configuration. A key that one of them lacks is not compared."""
    first, second = (_flat(read_yaml(text, "settings")) for text in (stored, _settings(config)))
    selected = config.data.group, config.optimizer, config.lr_scheduler
    used = tuple(f"{key}{name}." for key, name in zip(_GROUPS, selected))
    return [
        key
        for key in sorted(first.keys() & second.keys())
        if first[key] != second[key] and key.rpartition(".")[2] not in _NOT_TRAINING
        if not key.startswith(_GROUPS) or key.startswith(used)
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    pairs = [_flat(value, f"{prefix}{key}.").items() for key, value in tree.items()]
    return dict(pair for items in pairs for pair in items)
