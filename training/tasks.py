"""What a network is trained for: loss and metrics. To add a task, derive from `Task` (and, for its
metrics, from `Metrics` or `Confusion`) and let `initializer.py` choose it. Imports Paddle for the
loss only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from report import ClipScores, save_scores, worst_pairs, write_evaluation
from training import parallel

if TYPE_CHECKING:
    import paddle

    from dataset.feeder import ClipFeeder


class Task(ABC):
    """Outputs are those of the network, targets those of the loader; both have the clips on their
    first axis."""

    @abstractmethod
    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The mean loss of a micro-batch, a scalar. outputs: float32."""

    @abstractmethod
    def new_metrics(self) -> Metrics:
        """Metrics of no sample yet."""

    def write_outputs(
        self, folder: Path | None, feeder: ClipFeeder, outputs: Sequence[np.ndarray]
    ) -> None:
        """Write the outputs of an evaluation; by default nothing. Every process calls it, only
        rank 0 with a folder. outputs: batches of every size-th clip from this rank on."""
        return


class Metrics(ABC):
    """Sums over samples: name -> array; `add` updates them, `merge` adds those of other processes.
    primary: the value of `summary` that decides which epoch is the best; higher is better. curves:
    values recorded for every epoch, with the limits of their axes, None to fit the values."""

    primary: ClassVar[str]
    curves: ClassVar[Mapping[str, tuple[float, float] | None]]
    sums: dict[str, np.ndarray]

    @abstractmethod
    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Count a batch. outputs: float32."""

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

    def write(self, folder: Path, note: str) -> dict[str, Path]:
        """Write tables and figures. note: for titles, or ''. Returns the PNG files by the names
        that VisualDL shows."""
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
        matrix = np.zeros((num_class, num_class), np.int64)
        self.sums = {"matrix": matrix, "top5": np.zeros(1, np.int64), "loss": np.zeros(1)}

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
        """Restore the counts; the loss is not stored. 'cm' may be 0: no evaluation yet. Raises
        ValueError or TypeError for other values."""
        matrix = np.broadcast_to(np.asarray(state["cm"]), self.matrix.shape)
        if matrix.dtype.kind not in "iu" or matrix.min() < 0:
            raise ValueError("cm are not the counts of a confusion matrix")
        self.sums["matrix"] = matrix.astype(np.int64)
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


class ClipClassification(Task):
    """One class for every clip. Outputs are logits (N, num_class), targets labels (N,) int64."""

    def __init__(
        self, class_names: Sequence[str], label_smoothing: float, about: Mapping[str, Any]
    ) -> None:
        """about: of the network and the data, for the score files (`ClipScores`)."""
        self.class_names, self.label_smoothing = class_names, label_smoothing
        self.about = about

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        import paddle.nn.functional as F

        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def new_metrics(self) -> ClipMetrics:
        return ClipMetrics(self.class_names)

    def write_outputs(
        self, folder: Path | None, feeder: ClipFeeder, outputs: Sequence[np.ndarray]
    ) -> None:
        """scores.npz: the logits of every clip, in order."""
        none = np.zeros((0, len(self.class_names)), np.float32)  # a process may have no clip
        logits = parallel.gathered(np.concatenate([none, *outputs]), len(feeder))
        if folder is not None:
            scores = ClipScores(np.array(feeder.names), feeder.labels, logits, self.about)
            save_scores(folder / "scores.npz", scores)


class ClipMetrics(Confusion):
    """Counts of clips by class, with log lines, tables and a figure."""

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__(len(class_names))
        self.class_names = class_names

    def training_line(self) -> str:
        return f"Training accuracy: {self._share(self.num_top1)}"

    def evaluation_line(self) -> str:
        top1, top5 = self._share(self.num_top1), self._share(self.num_top5)
        loss = self.summary()["loss"]
        return f"Top-1 accuracy: {top1}, Top-5 accuracy: {top5}, Mean loss:{loss:.4f}"

    def best_line(self) -> str:
        return f"Best top-1 accuracy: {100 * self.score:.2f}%"

    def details(self) -> list[str]:
        names = self.class_names
        return [f"Mean class accuracy: {100 * self.mean_class_accuracy:.2f}%"] + [
            f"Confused: {names[true]} -> {names[predicted]}, {clips} clips"
            for true, predicted, clips in worst_pairs(self.matrix, count=5)
        ]

    def write(self, folder: Path, note: str) -> dict[str, Path]:
        """confusion.csv, confusion.png and per_class.csv."""
        return {"confusion": write_evaluation(folder, self.matrix, self.class_names, note=note)}

    def _share(self, count: int) -> str:
        """'18/24(75.00%)'."""
        return f"{count}/{self.num_sample}({100 * count / max(self.num_sample, 1):.2f}%)"
