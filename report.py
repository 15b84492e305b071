"""What people look at after a run: counts, tables and pictures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_io import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Confusion:
    """Counts over an evaluation, exact for any batch size.

    matrix[true, predicted]. A label is among the top 5 where fewer than 5 classes score higher.
    """

    def __init__(self, num_class: int) -> None:
        self.matrix = np.zeros((num_class, num_class), dtype=np.int64)
        self.num_top5 = 0
        self.loss_sum = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """logits: (N, num_class) float. labels: (N,) int."""
        num_class = len(self.matrix)
        cells = labels * num_class + logits.argmax(axis=1)
        self.matrix += np.bincount(cells, minlength=num_class**2).reshape(num_class, num_class)
        own = np.take_along_axis(logits, labels[:, None], axis=1)
        self.num_top5 += int(((logits > own).sum(axis=1) < 5).sum())
        peak = logits.max(axis=1, keepdims=True).astype(np.float64)
        log_sum = np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]
        self.loss_sum += float((log_sum - own[:, 0]).sum())

    @property
    def num_sample(self) -> int:
        return int(self.matrix.sum())

    @property
    def num_top1(self) -> int:
        return int(self.matrix.trace())

    @property
    def mean_loss(self) -> float:
        """Mean cross-entropy over samples."""
        return self.loss_sum / max(self.num_sample, 1)

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the per-class accuracies, over the classes that occur."""
        per_class = self.matrix.sum(axis=1)
        seen = per_class > 0
        return float((self.matrix.diagonal()[seen] / per_class[seen]).mean()) if seen.any() else 0.0

    def worst_pairs(self, count: int = 5) -> list[tuple[int, int, int]]:
        """(true, predicted, clips) of the most frequent confusions, most frequent first."""
        wrong = self.matrix - np.diag(self.matrix.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = [(int(n // len(wrong)), int(n % len(wrong))) for n in order]
        return [(t, p, int(wrong[t, p])) for t, p in pairs if wrong[t, p]]


def write_evaluation(folder: Path, confusion: Confusion, class_names: Sequence[str]) -> None:
    """confusion.csv (rows true, columns predicted), confusion.png and per_class.csv."""
    table = [["true \\ predicted", *class_names]]
    table += [[name, *row] for name, row in zip(class_names, confusion.matrix.tolist())]
    write_csv(folder / "confusion.csv", table)
    per_class = [["label", "class", "clips", "correct", "accuracy", "most confused with"]]
    worst = {true: pred for true, pred, _ in reversed(confusion.worst_pairs(count=10**6))}
    for label, row in enumerate(confusion.matrix):
        clips, correct = int(row.sum()), int(row[label])
        accuracy = f"{correct / clips:.4f}" if clips else ""
        rival = class_names[worst[label]] if label in worst else ""
        per_class.append([label, class_names[label], clips, correct, accuracy, rival])
    write_csv(folder / "per_class.csv", per_class)
    _save_picture(folder / "confusion.png", _confusion_figure(confusion, class_names))


def write_curves(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """curves.csv and curves.png of a run. history: one dict an epoch with epoch, learning_rate,
    train_loss, train_accuracy, and eval_loss and eval_accuracy where it was evaluated (or None).
    """
    if not history:
        return
    keys = list(history[0])
    rows = [[("" if row[k] is None else row[k]) for k in keys] for row in history]
    write_csv(folder / "curves.csv", [keys, *rows])
    _save_picture(folder / "curves.png", _curves_figure(history))


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Rows of values as UTF-8 CSV, whole or not at all."""
    with whole_file(path, "w") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save_picture(path: Path, figure: Figure) -> None:
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _confusion_figure(confusion: Confusion, class_names: Sequence[str]) -> Figure:
    size = max(5.0, 0.16 * len(class_names) + 3)
    figure = _new_figure(size + 0.8, size)
    axes = figure.subplots()
    shares = confusion.matrix / np.maximum(confusion.matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    ticks = np.arange(len(class_names))
    small = 9 if len(class_names) <= 20 else 5
    axes.set_xticks(ticks, class_names, rotation=90, fontsize=small)
    axes.set_yticks(ticks, class_names, fontsize=small)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"top-1 {confusion.num_top1}/{confusion.num_sample}")
    return figure


def _curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    figure = _new_figure(11, 3.4)
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, quantity, sets in (
        (loss, "loss", ("train_loss", "eval_loss")),
        (accuracy, "accuracy", ("train_accuracy", "eval_accuracy")),
        (rate, "learning rate", ("learning_rate",)),
    ):
        for key in sets:
            points = [(row["epoch"], row[key]) for row in history if row[key] is not None]
            axes.plot(*zip(*points), marker=".", label=key.split("_")[0])
        axes.set(xlabel="epoch", title=quantity)
        axes.grid(alpha=0.3)
        if len(sets) > 1:
            axes.legend()
    accuracy.set_ylim(0, 1.02)
    return figure
