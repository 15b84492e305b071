"""Process set-up, logging, counts, tables and figures."""

from __future__ import annotations

import csv
import logging
import os
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import report
import utils
from errors import UserError
from tests.processes import run_python
from training.tasks import Confusion

SHOW = "import os, utils; utils.prepare_process({}); print(os.environ.get('OMP_NUM_THREADS'))"


@pytest.mark.parametrize(
    ("set_up", "own", "expected"),
    [(True, None, str(utils.num_cores())), (True, "1", "1"), (False, None, "1")],
)
def test_cpu_set_up_yields_to_the_user(set_up: bool, own: str | None, expected: str) -> None:
    environ = dict.fromkeys(k for k in os.environ if "threads" in k.lower())
    done = run_python("-c", SHOW.format(set_up), environ={**environ, "OMP_NUM_THREADS": own})
    assert (done.stdout.strip(), done.stderr) == (expected, "")  # Paddle itself sets 1


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends the process there")
def test_ctrl_c_waits_for_the_import_of_paddle(tmp_path: Path) -> None:
    interrupted = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('imported')"
    (tmp_path / "paddle.py").write_text(interrupted)
    code = "import errors, sys, utils\nsys.path.insert(0, sys.argv[1])\n"
    code += "sys.exit(errors.run_command(utils.import_paddle_quietly))"
    done = run_python("-c", code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "imported\n", "interrupted\n")


def test_amd_and_malloc_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(utils, "_keep_freed_memory", lambda: calls.append("malloc"))
    monkeypatch.setattr(utils, "_is_amd", lambda: True)
    monkeypatch.setattr(utils.sys, "platform", "linux")
    for name in (*utils._MALLOC_SETTINGS, "MKL_DEBUG_CPU_TYPE"):
        monkeypatch.setenv(name, "")  # recorded, so that monkeypatch restores it after the test
        monkeypatch.delenv(name)
    utils.prepare_process()
    assert calls == ["malloc"] and os.environ["MKL_DEBUG_CPU_TYPE"] == "5"
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    utils.prepare_process()
    assert calls == ["malloc"] and os.environ["MKL_DEBUG_CPU_TYPE"] == "4"


def test_a_missing_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(UserError, match="finds 0 GPUs"):
        utils.set_device((0,))
    utils.set_device(())
    assert paddle.device.get_device() == "cpu"


def test_format_duration() -> None:
    assert utils.format_duration(90_061.9) == "01d-01h-01m-01s"


def test_log_goes_to_console_and_file_once(tmp_path: Path, capsys) -> None:
    for _ in range(2):
        utils.setup_logging()
    logging.info("Built %s", "x")
    utils.log_to_file(tmp_path / "log.txt")
    logging.info("Starting %s", "y")
    utils.setup_logging()
    logging.info("another run")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split("] ")[1] for line in lines] == ["Built x", "Starting y"]
    out = capsys.readouterr().out
    assert out.count("Built x") == out.count("Starting y") == 1
    with pytest.raises(UserError, match="cannot be written"):
        utils.log_to_file(tmp_path)


def naive_counts(logits: np.ndarray, labels: np.ndarray) -> tuple:
    top1 = top5 = 0
    loss, matrix = 0.0, np.zeros((logits.shape[1],) * 2, int)
    for row, label in zip(logits, labels):
        order = sorted(range(len(row)), key=lambda c: -row[c])
        top1 += order[0] == label
        top5 += label in order[:5]
        loss -= row[label] - np.log(np.exp(row).sum())
        matrix[label, order[0]] += 1
    return top1, top5, loss / len(labels), matrix


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_confusion_is_exact_for_any_batch_size(batch: int) -> None:
    rng = np.random.RandomState(0)
    logits, labels = rng.standard_normal((100, 8)), rng.randint(0, 7, 100)
    counts = Confusion(8)
    for start in range(0, 100, batch):
        counts.add(logits[start : start + batch], labels[start : start + batch])
    top1, top5, loss, matrix = naive_counts(logits, labels)
    assert (counts.num_sample, counts.num_top1, counts.num_top5) == (100, top1, top5)
    assert counts.summary()["loss"] == pytest.approx(loss)
    np.testing.assert_array_equal(counts.matrix, matrix)
    per_class = [matrix[c, c] / matrix[c].sum() for c in range(7)]
    assert counts.mean_class_accuracy == pytest.approx(np.mean(per_class))
    wrong = matrix - np.diag(np.diag(matrix))
    true, predicted, clips = report.worst_pairs(counts.matrix, 1)[0]
    assert wrong[true, predicted] == clips == wrong.max()


def test_huge_logits_have_a_finite_loss() -> None:
    counts = Confusion(2)
    counts.add(np.array([[1e4, -1e4]], np.float32), np.array([1]))
    assert counts.summary()["loss"] == pytest.approx(2e4)


def test_evaluation_files(tmp_path: Path) -> None:
    matrix = np.array([[4, 1, 0], [2, 3, 0], [0, 0, 0]])
    png = report.write_evaluation(tmp_path, matrix, ["sit, down", "wave", "jump"])
    rows = list(csv.reader((tmp_path / "confusion.csv").open()))
    assert rows[1:] == [
        ["sit, down", "4", "1", "0"],
        ["wave", "2", "3", "0"],
        ["jump", "0", "0", "0"],
    ]
    table = list(csv.reader((tmp_path / "per_class.csv").open()))
    assert table[1] == ["0", "sit, down", "5", "4", "0.8000", "wave"]
    assert table[3] == ["2", "jump", "0", "0", "", ""]
    assert png == tmp_path / "confusion.png" and png.read_bytes().startswith(b"\x89PNG")


def test_curve_files(tmp_path: Path) -> None:
    row = {"learning_rate": 0.1, "train_loss": 2.0, "train_accuracy": 0.5}
    history = [
        {"epoch": 1, **row, "eval_loss": None, "eval_accuracy": None},
        {"epoch": 2, **row, "eval_loss": 1.0, "eval_accuracy": 0.25},
    ]
    report.write_curves(tmp_path, history, Confusion.curves)
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines[1:] == ["1,0.1,2.0,0.5,,", "2,0.1,2.0,0.5,1.0,0.25"]
    assert (tmp_path / "curves.png").stat().st_size > 5000
