"""Process set-up, checkpoints, counting and pictures."""

from __future__ import annotations

import csv
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from networks import SMALL, efficientgcn

import report
import utils
from errors import UserError
from report import Confusion
from training import checkpoint, run_state

ROOT = Path(__file__).resolve().parent.parent
SHOW = "import os, utils; utils.prepare_process({}); print(os.environ.get('OMP_NUM_THREADS'))"


@pytest.mark.parametrize(
    ("set_up", "own", "expected"),
    [(True, None, str(utils.num_cores())), (True, "1", "1"), (False, None, "1")],
)
def test_cpu_set_up_yields_to_the_user(set_up: bool, own: str | None, expected: str) -> None:
    env = {k: v for k, v in os.environ.items() if "threads" not in k.lower()}
    env.update({"OMP_NUM_THREADS": own} if own else {})
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(set_up)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (expected, "")  # Paddle itself sets 1


def test_amd_and_malloc_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(utils, "_keep_freed_memory", lambda: calls.append("malloc"))
    monkeypatch.setattr(utils, "_is_amd", lambda: True)
    monkeypatch.setattr(utils.sys, "platform", "linux")
    for name in (*utils._MALLOC_SETTINGS, "MKL_DEBUG_CPU_TYPE"):
        monkeypatch.setenv(name, "")  # noted, so that what the test sets is gone after it
        monkeypatch.delenv(name)
    utils.prepare_process()
    assert calls == ["malloc"] and os.environ["MKL_DEBUG_CPU_TYPE"] == "5"
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    utils.prepare_process()
    assert calls == ["malloc"] and os.environ["MKL_DEBUG_CPU_TYPE"] == "4"


def test_absent_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(UserError, match="sees 0 GPUs"):
        utils.set_device((0,))
    assert utils.set_device(()) == "cpu" or str(utils.set_device(())) == "Place(cpu)"


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


def test_different_keys() -> None:
    a = "{x: {list: [1, 50], s: 1}, y: 2, z: [2, 1]}"
    b = "{x: {list: [2, 50], s: 1}, y: 2, z: [2, 1], new: 0}"
    assert run_state.different_keys(a, a) == [] and run_state.different_keys(a, b) == [
        "new",
        "x.list",
    ]


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    """Read back by our reader and by Paddle's; the classifier has the public port's rank 5."""
    paddle.seed(1)
    network, other = efficientgcn(**SMALL), efficientgcn(**SMALL)
    file = tmp_path / "w.pdparams"
    checkpoint.save_checkpoint(file, {"model": checkpoint.weights_of(network), "epoch": 3})
    content = checkpoint.load_checkpoint(file)
    assert content["epoch"] == 3
    assert content["model"]["classifier.fc.weight"].shape == (60, 16, 1, 1, 1)
    checkpoint.load_weights(other, content["model"], source=file)
    for (name, a), b in zip(network.state_dict().items(), other.state_dict().values()):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    by_paddle = paddle.load(str(file))
    np.testing.assert_array_equal(
        by_paddle["model"]["classifier.fc.bias"].numpy(), network.classifier.fc.bias.numpy()
    )


def test_bare_and_squeezed_state_dicts_load(tmp_path: Path) -> None:
    network = efficientgcn(**SMALL)
    paddle.save(network.state_dict(), str(tmp_path / "bare.pdparams"))
    content = checkpoint.load_checkpoint(tmp_path / "bare.pdparams")
    checkpoint.load_weights(network, content["model"], source="bare")  # rank 4, as in the network
    assert set(content) == {"model"}


def test_wrong_weights_are_refused_by_name(tmp_path: Path) -> None:
    network = efficientgcn(**SMALL)
    weights = {k: v.numpy() for k, v in checkpoint.weights_of(network).items()}
    before = network.classifier.fc.bias.numpy().copy()
    broken = dict(weights, extra=np.zeros(1), **{"classifier.fc.bias": np.zeros(7)})
    del broken["main_stream.block-0_scn.bn.bias"]
    pattern = r"missing main_stream.block-0_scn.bn.bias; unexpected extra; .*fc.bias is \[7\]"
    with pytest.raises(UserError, match=pattern):
        checkpoint.load_weights(network, broken, source="f")
    nan = dict(weights, **{"classifier.fc.bias": np.full(60, np.nan, np.float32)})
    with pytest.raises(UserError, match="not finite"):
        checkpoint.load_weights(network, nan, source="f")
    np.testing.assert_array_equal(network.classifier.fc.bias.numpy(), before)
    for content, message in (([1], "holds a list"), ({}, "no weights"), ({"a": "b"}, "no weights")):
        (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=message):
            checkpoint.load_checkpoint(tmp_path / "x.pdparams")


@pytest.mark.filterwarnings("ignore:When training:UserWarning")
def test_optimizer_state_survives_other_parameter_names() -> None:
    """Paddle numbers parameters by process; ours are stored under the network's own names. A step
    with the stored momentum must be the step that the first optimizer would make."""
    pair = []
    for _ in range(2):  # the second network's parameters are called otherwise
        network = efficientgcn(**{**SMALL, "drop_prob": 0.0}, branches=1)
        pair.append((network, paddle.optimizer.Momentum(0.1, 0.9, network.parameters())))
    (first, optimizer), (second, fresh) = pair
    x = paddle.to_tensor(np.random.RandomState(0).randn(2, 50, 6, 8).astype(np.float32))

    def step(network: paddle.nn.Layer, optimizer: paddle.optimizer.Momentum) -> np.ndarray:
        (network(x) ** 2).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        return network.main_stream[0].conv.gcn.weight.numpy().copy()

    step(first, optimizer)
    second.set_state_dict(first.state_dict())
    stored = {k: v.numpy() for k, v in checkpoint.optimizer_state(first, optimizer).items()}
    assert len(stored) == len([p for p in first.parameters() if not p.stop_gradient])
    checkpoint.load_optimizer_state(second, fresh, stored, source="f")
    expected, got = step(first, optimizer), step(second, fresh)
    np.testing.assert_array_equal(got, expected)
    for wrong in ({}, dict(stored, **{"nobody.velocity_0": np.zeros(1)})):
        with pytest.raises(UserError, match=r"state does not fit: .*velocity_0 missing"):
            checkpoint.load_optimizer_state(second, fresh, wrong, source="f")


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
    assert counts.mean_loss == pytest.approx(loss)
    np.testing.assert_array_equal(counts.matrix, matrix)
    per_class = [matrix[c, c] / matrix[c].sum() for c in range(7)]
    assert counts.mean_class_accuracy == pytest.approx(np.mean(per_class))
    wrong = matrix - np.diag(np.diag(matrix))
    true, predicted, clips = counts.worst_pairs(1)[0]
    assert wrong[true, predicted] == clips == wrong.max()


def test_huge_logits_have_a_finite_loss() -> None:
    counts = Confusion(2)
    counts.add(np.array([[1e4, -1e4]], np.float32), np.array([1]))
    assert counts.mean_loss == pytest.approx(2e4)


def test_evaluation_files(tmp_path: Path) -> None:
    counts = Confusion(3)
    counts.matrix[:] = [[4, 1, 0], [2, 3, 0], [0, 0, 0]]
    report.write_evaluation(tmp_path, counts, ["sit, down", "wave", "jump"])
    rows = list(csv.reader((tmp_path / "confusion.csv").open()))
    assert rows[1:] == [
        ["sit, down", "4", "1", "0"],
        ["wave", "2", "3", "0"],
        ["jump", "0", "0", "0"],
    ]
    table = list(csv.reader((tmp_path / "per_class.csv").open()))
    assert table[1] == ["0", "sit, down", "5", "4", "0.8000", "wave"]
    assert table[3] == ["2", "jump", "0", "0", "", ""]
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_curve_files(tmp_path: Path) -> None:
    row = {"learning_rate": 0.1, "train_loss": 2.0, "train_accuracy": 0.5}
    history = [
        {"epoch": 1, **row, "eval_loss": None, "eval_accuracy": None},
        {"epoch": 2, **row, "eval_loss": 1.0, "eval_accuracy": 0.25},
    ]
    report.write_curves(tmp_path, history)
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines[1:] == ["1,0.1,2.0,0.5,,", "2,0.1,2.0,0.5,1.0,0.25"]
    assert (tmp_path / "curves.png").stat().st_size > 5000
