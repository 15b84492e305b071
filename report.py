"""Tables, figures and score files of a run."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import UserError, printable
from safe_io import PathLike, read_npz, whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a formula of a spreadsheet may begin
MAX_INCHES, MAX_NAMED = 36.0, 220  # of a confusion matrix, and classes whose names it shows


def worst_pairs(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """(true, predicted, clips) of the most frequent confusions. matrix[true, predicted]: clips."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [(int(n // len(wrong)), int(n % len(wrong))) for n in order]
    return [(t, p, int(wrong[t, p])) for t, p in pairs if wrong[t, p]]


def write_evaluation(
    folder: Path,
    matrix: np.ndarray,
    class_names: Sequence[str],
    *,
    prefix: str = "",
    note: str = "",
) -> Path:
    """confusion.csv (rows true, columns predicted), per_class.csv and confusion.png, whose path is
    returned; there is no figure where it cannot be drawn. matrix[true, predicted]: clips. prefix:
    of the names of the files. note: second line of the figure's title."""
    table = [["true \\ predicted", *class_names]]
    table += [[name, *row] for name, row in zip(class_names, matrix.tolist())]
    write_csv(folder / f"{prefix}confusion.csv", table)
    header = ["label", "class", "clips", "correct", "accuracy", "most confused with"]
    per_class: list[list[Any]] = [header]
    worst = {true: pred for true, pred, _ in reversed(worst_pairs(matrix, count=10**6))}
    for label, row in enumerate(matrix):
        clips, correct = int(row.sum()), int(row[label])
        accuracy = f"{correct / clips:.4f}" if clips else ""
        rival = class_names[worst[label]] if label in worst else ""
        per_class.append([label, class_names[label], clips, correct, accuracy, rival])
    write_csv(folder / f"{prefix}per_class.csv", per_class)
    path = folder / f"{prefix}confusion.png"
    with _drawing(path):
        save_figure(path, _confusion_figure(matrix, class_names, note))
    return path


def write_curves(
    folder: Path,
    history: Sequence[Mapping[str, Any]],
    curves: Mapping[str, tuple[float, float] | None],
) -> None:
    """curves.csv and curves.png. curves: the quantities, with the limits of their axes, None to fit
    the values. history: rows of epoch, learning_rate, train_<name> and eval_<name>, None where the
    epoch was not evaluated."""
    if not history:
        return
    keys = list(history[0])
    write_csv(folder / "curves.csv", [keys, *([row[key] for key in keys] for row in history)])
    with _drawing(folder / "curves.png"):
        save_figure(folder / "curves.png", _curves_figure(history, curves))


@contextlib.contextmanager
def _drawing(path: Path) -> Iterator[None]:
    """A figure that cannot be drawn costs a warning, not the run whose result it shows."""
    try:
        yield
    except Exception as error:  # Matplotlib's errors share no other base
        logging.warning("%s: not drawn: %s: %s", path, type(error).__name__, error)


@dataclass(frozen=True)
class ClipScores:
    """The logits of every clip of an evaluation. names: (N,) text, each once.
    labels: (N,) int64 in [0, num_class). logits: (N, num_class) float32, finite. about: the data
    set, its class_names and the weights_sha256 of the network, where known."""

    names: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)


def save_scores(path: PathLike, scores: ClipScores) -> None:
    """Write scores as an .npz file, atomically."""
    names, labels = scores.names.astype(np.str_), scores.labels.astype(np.int64)
    logits, about = scores.logits.astype(np.float32), np.array(json.dumps(dict(scores.about)))
    with whole_file(path) as file:
        np.savez(file, names=names, labels=labels, logits=logits, about=about)


def read_scores(path: PathLike) -> ClipScores:
    """Read a score file without running code from it. Raises UserError for any other file."""
    file = read_npz(path, "a score file of an evaluation")
    missing = [key for key in ("names", "labels", "logits") if key not in file]
    if missing:
        raise UserError(f"{path}: not a score file: {', '.join(missing)} missing")
    try:
        about = json.loads(str(file["about"])) if "about" in file else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a score file of an evaluation: {error}") from error
    scores = ClipScores(file["names"], file["labels"], file["logits"], about)
    if problem := _problem(scores):
        raise UserError(f"{path}: {problem}")
    return scores


def _problem(scores: ClipScores) -> str:
    """What is wrong with the arrays of a score file; '' for nothing."""
    names, labels, logits = scores.names, scores.labels, scores.logits
    if not isinstance(scores.about, dict):
        return "about is not a JSON object"
    kinds, ranks = (names.dtype.kind, labels.dtype, logits.dtype), (names.ndim, labels.ndim)
    if kinds != ("U", np.int64, np.float32) or ranks != (1, 1) or logits.ndim != 2:
        arrays = {"names": names, "labels": labels, "logits": logits}
        found = ", ".join(f"{key} {a.dtype}{a.shape}" for key, a in arrays.items())
        return f"{found}; allowed: text (N,), int64 (N,), float32 (N, num_class)"
    num_class = logits.shape[1]
    if not len(names) == len(labels) == len(logits) or not logits.size:
        found = f"{len(names)} names, {len(labels)} labels and logits {logits.shape}"
        return f"{found}; allowed: the same number of each, at least one"
    classes = scores.about.get("class_names", [""] * num_class)
    if not isinstance(classes, list) or [type(c) for c in classes] != [str] * num_class:
        return f"about.class_names are not the names of {num_class} classes"
    unique, count = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        return f"clip {unique[count > 1][0]} occurs more than once"
    if labels.min() < 0 or labels.max() >= num_class:
        return f"labels {labels.min()} to {labels.max()}; allowed: 0 to {num_class - 1}"
    broken = names[~np.isfinite(logits).all(axis=1)]
    return f"the scores of clip {broken[0]} hold NaN or infinity" if len(broken) else ""


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write rows of values as UTF-8 CSV, atomically; None as an empty cell. Texts are printable,
    and an apostrophe precedes those that a spreadsheet would take for a formula (OWASP)."""
    with whole_file(path, "w") as file:
        written = csv.writer(file, lineterminator="\n")
        written.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(_FORMULA) else printable(value)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _confusion_figure(matrix: np.ndarray, class_names: Sequence[str], note: str = "") -> Figure:
    size = min(max(5.0, 0.16 * len(class_names) + 3), MAX_INCHES)
    figure = new_figure(size + 0.8, size)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    ticks, small = np.arange(len(class_names)), 9 if len(class_names) <= 20 else 5
    labels, families = _drawable(class_names)
    style: dict[str, Any] = {"fontsize": small, "fontfamily": families, "parse_math": False}
    if len(labels) <= MAX_NAMED:
        axes.set_xticks(ticks, labels, rotation=90, **style)
        axes.set_yticks(ticks, labels, **style)
    title = f"top-1 {matrix.trace()}/{matrix.sum()}\n{note}".rstrip()
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, parse_math=False)
    return figure


def _drawable(class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels of the classes, and the font families that have all of their characters: the default,
    then installed fonts for other scripts. A name with a character that no font has is replaced by
    the number of the class, which the log says."""
    names = [" ".join(name.split()) for name in class_names]
    families, missing = _families_for(set("".join(names)))
    numbered = [n for n, name in enumerate(names) if missing & set(name)]
    if numbered:
        logging.warning(
            "confusion.png: no installed font has the characters of %d class names, e.g. %r; they "
            "are drawn as class numbers (the names are in per_class.csv); install a font of that "
            "script, e.g. Noto Sans CJK",
            *(len(numbered), names[numbered[0]]),
        )
    return [str(n) if n in numbered else name for n, name in enumerate(names)], families


def _families_for(characters: set[str]) -> tuple[list[str], set[str]]:
    """Font families that together have these characters, and the characters that none has."""
    from matplotlib import font_manager, get_data_path, rcParams

    def covered(family: str | None) -> set[str]:
        path = font_manager.findfont(font_manager.FontProperties(family=family))
        font = font_manager.get_font(path)
        return {character for character in missing if font.get_char_index(ord(character))}

    families, missing = list(rcParams["font.family"]), characters
    missing = missing - covered(None)
    if missing:
        _add_new_fonts()
    # Matplotlib's own other fonts are for formulas; fonts of last resort have boxes alone.
    others = {
        font.name
        for font in font_manager.fontManager.ttflist
        if not font.fname.startswith(get_data_path())
        and "lastresort" not in font.name.casefold().replace(" ", "")
    }
    while missing and others:
        best = max(sorted(others), key=lambda family: (len(covered(family)), "Sans" in family))
        if not (found := covered(best)):
            break
        families.append(best)
        missing = missing - found
    return families, missing


def _add_new_fonts() -> None:
    """Fonts installed since Matplotlib wrote its list of fonts."""
    from matplotlib import font_manager

    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, NotImplementedError):  # damaged, or of bitmaps
            logging.debug("%s: not a font that Matplotlib can draw", path)


def _curves_figure(
    history: Sequence[Mapping[str, Any]], curves: Mapping[str, tuple[float, float] | None]
) -> Figure:
    columns = len(curves) + 1
    figure = new_figure(11 / 3 * columns, 3.4)
    *plots, rate = figure.subplots(1, columns)
    for axes, (name, limits) in zip(plots, curves.items()):
        for phase in ("train", "eval"):
            _plot(axes, history, f"{phase}_{name}", phase)
        axes.set(title=name)
        axes.legend()
        if limits is not None:
            axes.set_ylim(limits)
    _plot(rate, history, "learning_rate", "learning")
    rate.set(title="learning rate")
    return figure


def _plot(axes: Axes, history: Sequence[Mapping[str, Any]], key: str, label: str) -> None:
    points = [(row["epoch"], row[key]) for row in history if row[key] is not None]
    axes.plot(*zip(*points), marker=".", label=label)
    axes.set(xlabel="epoch")
    axes.grid(alpha=0.3)
