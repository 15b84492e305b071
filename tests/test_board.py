"""VisualDL: the records of a run, and runs without VisualDL."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import paddle
import pytest
from matplotlib.image import imread

import main as cli
from training.board import open_board
from training.checkpoint import load_checkpoint


class Recorder:
    """A mock of visualdl.LogWriter."""

    made: list[Recorder] = []

    def __init__(self, logdir: str) -> None:
        self.logdir, self.closed = logdir, False
        self.scalars: list[tuple[str, float, int]] = []
        self.images: list[tuple[str, np.ndarray, int]] = []
        self.graphs: list[tuple[paddle.nn.Layer, list[Any]]] = []
        Recorder.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def add_image(self, tag: str, img: np.ndarray, step: int) -> None:
        self.images.append((tag, img, step))

    def add_graph(self, model: paddle.nn.Layer, input_spec: list[Any]) -> None:
        self.graphs.append((model, input_spec))
        model.classifier.fc.weight.set_value(paddle.zeros(model.classifier.fc.weight.shape))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    stub = ModuleType("visualdl")
    stub.LogWriter = Recorder
    monkeypatch.setitem(sys.modules, "visualdl", stub)
    monkeypatch.setattr(Recorder, "made", [])
    return Recorder.made


def test_a_run_and_its_resumption_are_shown(
    recorders: list[Recorder], tiny_keys: list[str], tmp_path: Path
) -> None:
    argv = ["-c", "9001", "-np", *tiny_keys, "scheduler_args.cosine.max_epoch=2"]
    assert cli.main(argv) == 0
    (run_dir,) = (tmp_path / "work").glob("*/*")
    history = load_checkpoint(run_dir / "last.pdparams")["history"]
    best = load_checkpoint(run_dir / "last.pdparams")["best_state"]["epoch"]
    (first,) = recorders
    expected = {
        (tag, float(row[key]), row["epoch"])
        for row in history
        for tag, key in (
            *(("loss/train", "train_loss"), ("loss/eval", "eval_loss")),
            *(("accuracy/train", "train_accuracy"), ("accuracy/eval", "eval_accuracy")),
            ("rate/learning rate", "learning_rate"),
        )
        if row[key] is not None
    }
    assert len(expected) == 10
    assert {(t, float(v), n) for t, v, n in first.scalars} == expected
    assert first.logdir == str(run_dir / "visualdl") and first.closed
    ((network, (spec,)),) = first.graphs
    assert tuple(spec.shape) == (1, 50, 18, 16) and not network.training
    weight = load_checkpoint(run_dir / "last.pdparams")["model"]["classifier.fc.weight"]
    assert abs(weight).max() > 0, "VisualDL changes only its copy of the network"
    ((tag, picture, epoch),) = first.images
    png = imread(run_dir / "confusion.png")[..., :3]
    assert (tag, epoch, picture.dtype) == ("confusion", best, np.uint8)
    np.testing.assert_allclose(picture / 255, png, atol=1e-6)

    assert cli.main(["-r", *argv]) == 0
    _, second = recorders
    assert second.scalars == first.scalars and not second.graphs, "one file shows the whole run"
    assert cli.main(["-e", "-pp", str(run_dir / "last.pdparams"), *argv]) == 0
    third = recorders[2]
    assert [tag for tag, _, _ in third.images] == ["confusion"] and not third.scalars
    assert "evaluate-eval-" in third.logdir and third.closed


def test_without_visualdl(monkeypatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "visualdl", None)  # an import of it fails
    assert open_board(tmp_path) is None and not list(tmp_path.iterdir())
    assert [r.getMessage() for r in caplog.records] == [
        "VisualDL is not installed: this run has its csv and png files only"
    ]


@pytest.mark.slow
def test_the_real_one(tiny_keys: list[str], tmp_path: Path) -> None:
    pytest.importorskip("visualdl")
    from visualdl import LogReader

    argv = ["-c", "9001", "-np", *tiny_keys, "scheduler_args.cosine.max_epoch=2"]
    assert cli.main(argv) == 0
    (folder,) = (tmp_path / "work").glob("*/*/visualdl")
    (records,) = folder.glob("vdlrecords.*.log")
    (graph,) = folder.glob("vdlgraph.*.log")
    assert graph.stat().st_size > 1000
    reader = LogReader(file_path=str(records))
    history = load_checkpoint(folder.parent / "last.pdparams")["history"]
    shown = [(item.id, item.value) for item in reader.get_data("scalar", "loss/train")]
    assert [n for n, _ in shown] == [1, 2]
    np.testing.assert_allclose([v for _, v in shown], [r["train_loss"] for r in history], rtol=1e-6)
    assert len(reader.get_data("image", "confusion")) == 1
