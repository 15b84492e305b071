"""What a network is trained for: loss and metrics. To add a task, derive from `Task` (and, for its
metrics, from `Metrics` or `Confusion`) and let `initializer.py` choose it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from dataset.feeder import ClipFeeder
from report import worst_pairs, write_evaluation, write_scores
from training import parallel
from training.metrics import Confusion, Metrics


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
    ) -> Path | None:
        """Write the outputs of an evaluation to a file and return its path; by default None.

        Every process calls it, only rank 0 with a folder. outputs: the batches of this process,
        which evaluates every size-th clip of the feeder from its rank on.
        """
        return None


class ClipClassification(Task):
    """One class for every clip. Outputs are logits (N, num_class), targets labels (N,) int64."""

    def __init__(self, class_names: Sequence[str], label_smoothing: float) -> None:
        self.class_names, self.label_smoothing = class_names, label_smoothing

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def new_metrics(self) -> ClipMetrics:
        return ClipMetrics(self.class_names)

    def write_outputs(
        self, folder: Path | None, feeder: ClipFeeder, outputs: Sequence[np.ndarray]
    ) -> Path | None:
        """scores.npz: the logits of every clip, in order."""
        none = np.zeros((0, len(self.class_names)), np.float32)  # a process may have no clip
        logits = parallel.gathered(np.concatenate([none, *outputs]), len(feeder))
        if folder is None:
            return None
        return write_scores(folder, feeder.names, feeder.labels, logits)


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

    def write(self, folder: Path) -> dict[str, Path]:
        """confusion.csv, confusion.png and per_class.csv."""
        return {"confusion": write_evaluation(folder, self.matrix, self.class_names)}

    def _share(self, count: int) -> str:
        """'18/24(75.00%)'."""
        return f"{count}/{self.num_sample}({100 * count / self.num_sample:.2f}%)"
