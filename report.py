"""What people look at after a run: counts, tables and pictures."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import UserError
from safe_io import PathLike, whole_file

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
    save_picture(folder / "confusion.png", _confusion_figure(confusion, class_names))


def write_curves(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """curves.csv and curves.png of a run. history: one dict an epoch with epoch, learning_rate,
    train_loss, train_accuracy, and eval_loss and eval_accuracy where it was evaluated (or None).
    """
    if not history:
        return
    keys = list(history[0])
    rows = [[("" if row[k] is None else row[k]) for k in keys] for row in history]
    write_csv(folder / "curves.csv", [keys, *rows])
    save_picture(folder / "curves.png", _curves_figure(history))


@dataclass(frozen=True)
class ClipScores:
    """What a network says about every clip of an evaluation. names: (N,) text, each once.
    labels: (N,) int64 in [0, num_class). logits: (N, num_class) float32, finite."""

    names: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def write_scores(
    folder: PathLike, names: Sequence[str], labels: np.ndarray, logits: np.ndarray
) -> Path:
    """Leave `scores.npz` in a folder, for `read_scores` and tools/fuse_scores.py; its path.

    names: N. labels: (N,) int. logits: (N, num_class) float.
    """
    path = Path(folder) / "scores.npz"
    save_scores(path, ClipScores(np.array(names), np.asarray(labels), np.asarray(logits)))
    return path


def save_scores(path: PathLike, scores: ClipScores) -> None:
    """Scores as an .npz file, whole or not at all."""
    with whole_file(path) as file:
        np.savez(
            file,
            names=scores.names.astype(np.str_),
            labels=scores.labels.astype(np.int64),
            logits=scores.logits.astype(np.float32),
        )


def read_scores(path: PathLike) -> ClipScores:
    """What `write_scores` wrote. Raises UserError for anything else; runs no pickled code."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ("names", "labels", "logits") if key not in file]
            if missing:
                raise UserError(f"{path}: no scores: {', '.join(missing)} missing in it")
            scores = ClipScores(file["names"], file["labels"], file["logits"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _NO_ARRAYS as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: no scores as an evaluation writes them: {reason}") from error
    _check_scores(path, scores)
    return scores


# What NumPy raises for a damaged file, for one of another kind, and for pickled objects.
_NO_ARRAYS = (
    *(ValueError, TypeError, AttributeError, KeyError, EOFError, MemoryError, RuntimeError),
    *(SyntaxError, zipfile.BadZipFile, zlib.error),
)


def _check_scores(path: PathLike, scores: ClipScores) -> None:
    names, labels, logits = scores.names, scores.labels, scores.logits
    kinds, shapes = (names.dtype.kind, labels.dtype, logits.dtype), (names.ndim, labels.ndim)
    if kinds != ("U", np.int64, np.float32) or shapes != (1, 1) or logits.ndim != 2:
        raise UserError(
            f"{path}: names {names.dtype}{names.shape}, labels {labels.dtype}{labels.shape}, "
            f"logits {logits.dtype}{logits.shape}; allowed: text (N,), int64 (N,), float32 "
            "(N, num_class)"
        )
    if not len(names) == len(labels) == len(logits) or not logits.size:
        raise UserError(
            f"{path}: {len(names)} names, {len(labels)} labels and logits {logits.shape}; "
            "allowed: as many of each, and at least one"
        )
    unique, count = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise UserError(f"{path}: clip {unique[count > 1][0]} is in it more than once")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise UserError(
            f"{path}: labels {labels.min()} to {labels.max()}; allowed: 0 to {logits.shape[1] - 1}"
        )
    if not np.isfinite(logits).all():
        name = names[~np.isfinite(logits).all(axis=1)][0]
        raise UserError(f"{path}: the scores of clip {name} hold NaN or infinity")


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Rows of values as UTF-8 CSV, whole or not at all."""
    with whole_file(path, "w") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_picture(path: Path, figure: Figure) -> None:
    """As PNG, whole or not at all."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _confusion_figure(confusion: Confusion, class_names: Sequence[str]) -> Figure:
    size = max(5.0, 0.16 * len(class_names) + 3)
    figure = new_figure(size + 0.8, size)
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
    figure = new_figure(11, 3.4)
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
