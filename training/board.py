"""Scalars, figures and the graph of a run for VisualDL, an optional package."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle import nn


class Board:
    """One session of a run. writer: a visualdl.LogWriter."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """row: of the curves; None is left out."""
        for key, value in row.items():
            if key != "epoch" and value is not None:
                self.writer.add_scalar(_tag(key), value, row["epoch"])

    def add_figure(self, tag: str, png: Path, epoch: int) -> None:
        from matplotlib.image import imread

        pixels = (imread(png)[..., :3] * 255).round().astype("uint8")  # (height, width, 3)
        self.writer.add_image(tag, pixels, epoch)

    def add_graph(self, network: nn.Layer, shape: tuple[int, ...]) -> None:
        """Add the network's graph for clip tensors of one shape (M*V, I*C, T). Takes seconds."""
        from paddle.static import InputSpec

        plain = copy.deepcopy(network)  # VisualDL renames and wraps the layers of its argument
        plain.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls deprecated functions of Paddle
            self.writer.add_graph(plain, [InputSpec([1, *shape], "float32")])


def open_board(run_dir: Path) -> Board | None:
    """A board that writes to <run_dir>/visualdl, or None where VisualDL is not installed."""
    try:
        from visualdl import LogWriter
    except ImportError:
        logging.info("VisualDL is not installed: this run has its csv and png files only")
        return None
    logging.info("VisualDL: visualdl --logdir %s", run_dir / "visualdl")
    return Board(LogWriter(logdir=str(run_dir / "visualdl")))


def _tag(key: str) -> str:
    """'train_loss' -> 'loss/train': VisualDL draws tags of one group side by side."""
    phase, _, name = key.partition("_")
    return f"{name}/{phase}" if phase in ("train", "eval") else "rate/learning rate"
