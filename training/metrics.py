"""Metrics of a task as sums over samples, which depend neither on the batch size nor on the number
of processes. Imports no Paddle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np

from training import parallel

Limits = Optional[tuple[float, float]]  # of an axis; None: fitted to the values


class Metrics(ABC):
    """sums: name -> array; `add` updates them, `merge` adds those of the other processes.
    primary: the value of `summary` that decides which epoch is the best; higher is better.
    curves: values of `summary` that are recorded for every epoch, with the limits of their axes.
    """

    primary: ClassVar[str]
    curves: ClassVar[Mapping[str, Limits]]
    sums: dict[str, np.ndarray]

    @abstractmethod
    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Count a batch. outputs: of the network, float32. targets: of the loader."""

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """The metrics as named scalars."""

    @property
    def score(self) -> float:
        return self.summary()[self.primary]

    def merge(self) -> None:
        """Add up the sums of all processes. Every process calls it."""
        self.sums = {name: parallel.summed(value) for name, value in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores of the best evaluation."""
        return dict(self.sums)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.sums = {name: np.asarray(state[name]) for name in self.sums}

    def training_line(self) -> str:
        """Log text after an epoch of training."""
        return "Training " + self._text(self.curves)

    def evaluation_line(self) -> str:
        """Log text after an evaluation."""
        return "Evaluation " + self._text(self.summary())

    def best_line(self) -> str:
        """Log text on the best evaluation so far."""
        return "Best " + self._text([self.primary])

    def details(self) -> list[str]:
        """Further log lines at the end of `main.py -e`."""
        return []

    def write(self, folder: Path) -> dict[str, Path]:
        """Write tables and figures. Returns the PNG files by the names that VisualDL shows."""
        return {}

    def _text(self, names: Iterable[str]) -> str:
        values = self.summary()
        return ", ".join(f"{name}: {values[name]:.4f}" for name in names)


class Confusion(Metrics):
    """Counts of a classification. A label is among the top 5 where fewer than 5 classes score
    higher."""

    primary = "accuracy"
    curves = {"loss": None, "accuracy": (0, 1.02)}

    def __init__(self, num_class: int) -> None:
        self.sums = {
            "matrix": np.zeros((num_class, num_class), np.int64),
            "top5": np.zeros(1, np.int64),
            "loss": np.zeros(1, np.float64),
        }

    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """outputs: (N, num_class) logits. targets: (N,) int labels."""
        cells = targets * len(self.matrix) + outputs.argmax(axis=1)
        counts = np.bincount(cells, minlength=self.matrix.size)
        self.sums["matrix"] += counts.reshape(self.matrix.shape)
        own = np.take_along_axis(outputs, targets[:, None], axis=1)
        self.sums["top5"] += ((outputs > own).sum(axis=1) < 5).sum()
        peak = outputs.max(axis=1, keepdims=True).astype(np.float64)
        log_sum = np.log(np.exp(outputs - peak).sum(axis=1)) + peak[:, 0]
        self.sums["loss"] += (log_sum - own[:, 0]).sum()

    def summary(self) -> dict[str, float]:
        """Mean cross-entropy, accuracies from 0 to 1."""
        clips = max(self.num_sample, 1)
        return {
            "loss": float(self.sums["loss"][0]) / clips,
            "accuracy": self.num_top1 / clips,
            "top5_accuracy": self.num_top5 / clips,
            "mean_class_accuracy": self.mean_class_accuracy,
        }

    def state(self) -> dict[str, Any]:
        """Under the names of the public Paddle port."""
        values = self.summary()
        top1, top5 = values["accuracy"], values["top5_accuracy"]
        return {"acc_top1": top1, "acc_top5": top5, "cm": self.matrix}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the counts; the loss is not stored. 'cm' may be 0: no evaluation yet."""
        self.sums["matrix"] = np.zeros_like(self.matrix) + np.asarray(state["cm"])
        self.sums["top5"] = np.array([round(float(state["acc_top5"]) * self.num_sample)])
        self.sums["loss"] = np.array([np.nan])

    @property
    def matrix(self) -> np.ndarray:
        """Samples by class, (num_class true, num_class predicted) int64."""
        return self.sums["matrix"]

    @property
    def num_sample(self) -> int:
        return int(self.matrix.sum())

    @property
    def num_top1(self) -> int:
        return int(self.matrix.trace())

    @property
    def num_top5(self) -> int:
        return int(self.sums["top5"][0])

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the per-class accuracies, over the classes that occur."""
        per_class = self.matrix.sum(axis=1)
        seen = per_class > 0
        return float((self.matrix.diagonal()[seen] / per_class[seen]).mean()) if seen.any() else 0.0
