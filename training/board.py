"""A run in VisualDL, where that is installed (requirements-optional.txt): `visualdl --logdir DIR`.
Without it a run has its csv and png files."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle import nn

_TAGS = {
    "learning_rate": "rate/learning rate",
    "train_loss": "loss/train",
    "eval_loss": "loss/eval",
    "train_accuracy": "accuracy/train",
    "eval_accuracy": "accuracy/eval",
}


class Board:
    """VisualDL's records of one session of a run. writer: a visualdl.LogWriter."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """The scalars of an epoch. row: of the curves; None is left out."""
        for key, tag in _TAGS.items():
            if row[key] is not None:
                self.writer.add_scalar(tag, row[key], row["epoch"])

    def add_picture(self, tag: str, png: Path, epoch: int) -> None:
        """A picture that the run has written."""
        from matplotlib.image import imread

        pixels = (imread(png)[..., :3] * 255).round().astype("uint8")  # (height, width, 3)
        self.writer.add_image(tag, pixels, epoch)

    def add_graph(self, network: nn.Layer, shape: tuple[int, ...]) -> None:
        """The network for one clip tensor of that shape, (M*V, I*C, T). Takes some seconds."""
        from paddle.static import InputSpec

        plain = copy.deepcopy(network)  # VisualDL renames and wraps the layers that it is given
        plain.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its way of calling Paddle is not the newest
            self.writer.add_graph(plain, [InputSpec([1, *shape], "float32")])

    def close(self) -> None:
        """Write what is pending."""
        self.writer.close()


def open_board(run_dir: Path) -> Board | None:
    """Records in <run_dir>/visualdl, or None where VisualDL is not installed."""
    try:
        from visualdl import LogWriter
    except ImportError:
        logging.info("VisualDL is not installed: this run has its csv and png files only")
        return None
    logging.info("VisualDL: visualdl --logdir %s", run_dir / "visualdl")
    return Board(LogWriter(logdir=str(run_dir / "visualdl")))
