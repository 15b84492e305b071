"""Several processes, accumulation, clipping, label smoothing, mixed precision, learning rates."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from networks import network_of

import configs
import main as cli
from dataset.feeder import StepSampler, data_loader, eval_sampler
from errors import UserError, run_command
from initializer import Initializer
from report import read_scores
from tests.processes import ROOT, is_running, run_python, wait_until
from training import parallel
from training.checkpoint import load_checkpoint
from training.step import TrainingStep

TWO_RANKS = """
import json, sys
import utils
from training import parallel
parallel.share_cores()
utils.prepare_process()
import numpy as np, paddle
from paddle import nn

here = parallel.join(())
said = {"world": list(here), "threads": utils.os.environ["FLAGS_paddle_num_threads"]}
said["summed"] = parallel.summed(np.array([2**40 + here.rank, 1])).tolist()
said["float"] = parallel.summed(np.array([0.1 * (here.rank + 1)])).tolist()
own = np.arange(5)[here.rank :: 2, None] + np.array([[0.0, 0.5]], np.float32)
said["gathered"] = parallel.gathered(own, 5).tolist()
norms = nn.Sequential(nn.BatchNorm2D(2), nn.Conv2D(2, 3, 1), nn.BatchNorm2D(3))
norms[0]._mean.set_value(np.array([1.0, 3.0 + here.rank], np.float32))
norms[2]._variance.set_value(np.array([1.0, 2.0, 4.0 * here.rank], np.float32))
parallel.average_statistics(norms)
said["statistics"] = [norms[0]._mean.tolist(), norms[2]._variance.tolist()]
utils.set_seed(3, 1, here.rank)
said["dropout"] = nn.functional.dropout(paddle.ones([64])).astype(bool).tolist()

# Two micro-batches per process: the gradient is the mean over processes of their sums.
paddle.seed(here.rank)  # different weights, which replicate makes equal
net = nn.Linear(3, 1, bias_attr=False)
replica = parallel.replicate(net)
said["weight"] = net.weight.numpy().ravel().tolist()
x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)  # (micro-batch, rank, feature)
for n in range(2):
    with parallel.own_gradients(replica):
        replica(paddle.to_tensor(x[n, here.rank])).sum().backward()
said["own"] = net.weight.grad.numpy().ravel().tolist()
parallel.share_gradients(net)
said["shared"] = net.weight.grad.numpy().ravel().tolist()
with open(sys.argv[1] + str(here.rank), "w") as file:
    json.dump(said, file)
parallel.barrier()
if here.rank == 0:
    utils.setup_logging()
    parallel.TIMEOUT = 0.5
    with parallel.report_lost_rank():
        parallel.barrier()  # which the other process does not reach in time
utils.importlib.import_module("time").sleep(2)
"""

# Prints the workers' process ids and waits to be killed.
KEEP_WORKERS = """
import sys, time
import utils
utils.prepare_process()
import multiprocessing, paddle
from dataset.feeder import data_loader, eval_sampler
class Numbers(paddle.io.Dataset):
    def __len__(self):
        return 50
    def __getitem__(self, n):
        return n
batches = iter(data_loader(Numbers(), eval_sampler(50, 1), 2, 8))
next(batches)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
time.sleep(300)
"""

# Rank 1 dies as by kill -9 at a barrier within a step.
DIE_IN_A_STEP = """
import os, signal, sys
import main
from training import parallel
real, seen = parallel.barrier, []
def barrier():
    seen.append(1)
    if os.environ["PADDLE_TRAINER_ID"] == "1" and len(seen) == DIE_AT:
        os.kill(os.getpid(), signal.SIGKILL)
    real()
parallel.barrier = barrier
sys.exit(main.run_command(main.main))
"""


def launch(log_dir: Path, script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """`script` with 2 gloo processes on this machine."""
    command = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    environ = dict.fromkeys(k for k in os.environ if "THREADS" in k.upper())
    environ["PYTHONPATH"] = str(ROOT)
    return run_python(*command, "--log_dir", log_dir, script, *argv, environ=environ)


def test_two_processes_add_up(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_RANKS)
    done = launch(tmp_path / "log", str(tmp_path / "two.py"), str(tmp_path / "said"))
    first, second = (json.loads((tmp_path / f"said{n}").read_text()) for n in range(2))
    assert first["world"] == [0, 2, 2] and second["world"] == [1, 2, 2]
    for said in (first, second):
        assert said["threads"] == str(max(1, len(os.sched_getaffinity(0)) // 2))
        assert said["summed"] == [2**41 + 1, 2]
        np.testing.assert_allclose(said["float"], [0.3], rtol=1e-15)  # float64
        assert said["gathered"] == [[n, n + 0.5] for n in range(5)]
        assert said["statistics"] == [[1, 3.5], [1, 2, 2]]
        assert said["weight"] == first["weight"]
        np.testing.assert_allclose(said["shared"], [9, 11, 13])
    assert first["own"] == [6, 8, 10] and second["own"] == [12, 14, 16]
    masks = np.array([first["dropout"], second["dropout"]])
    assert 10 < (masks[0] != masks[1]).sum() < 54
    assert done.returncode != 0
    assert (
        "rank 0 of 2 has lost rank 1: not at the barrier after 0.5 s. The workerlog" in done.stdout
    )


@pytest.mark.slow
def test_two_ranks_equal_one_process_and_survive_a_kill(
    tiny_keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training with 2 processes gives the parameters of one that accumulates the same two half
    batches; every clip is evaluated once; only rank 0 writes; a killed rank ends the run with a
    message, and the resumed run ends with the same weights."""
    keys = ["dataset_args.ntu.train_batch_size=4", "model_args.drop_prob=0"]
    keys += ["dataset_args.ntu.augment.random_rotate=20", "dataset_args.ntu.augment.jitter=0.01"]
    argv = ["-c", "9001", "-np", *tiny_keys, *keys]
    work = tmp_path / "work/9001_EfficientGCN-B0_synthetic-xsub"
    assert cli.main([*argv, "accumulate=2"]) == 0
    (one,) = work.iterdir()
    done = launch(tmp_path / "log", "main.py", *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    (two,) = set(work.iterdir()) - {one}
    a, b = (load_checkpoint(d / "last.pdparams") for d in (one, two))
    moved = 0.0
    start = network_of(configs.load("9001", configs.parse_set(argv[4:])))
    for name, tensor in start.state_dict().items():
        if not name.endswith(("_mean", "_variance")):  # averaged over ranks
            shape = a["model"][name].shape
            np.testing.assert_allclose(a["model"][name], b["model"][name], atol=1e-4, err_msg=name)
            moved = max(moved, float(abs(a["model"][name] - tensor.numpy().reshape(shape)).max()))
    assert moved > 0.05
    assert [r["train_accuracy"] for r in a["history"]] == [
        r["train_accuracy"] for r in b["history"]
    ]
    losses = [[row["train_loss"] for row in x["history"]] for x in (a, b)]
    np.testing.assert_allclose(*losses, atol=1e-4)
    assert "[ 20" not in (tmp_path / "log/workerlog.1").read_text(), "only rank 0 reports"

    (tmp_path / "die.py").write_text(DIE_IN_A_STEP.replace("DIE_AT", "20"))
    done = launch(tmp_path / "killed", str(tmp_path / "die.py"), *argv)
    assert done.returncode != 0
    (cut,) = set(work.iterdir()) - {one, two}
    text = (cut / "log.txt").read_text()
    assert re.search(r"rank 0 of 2 has lost (rank 1|another rank \(.*\))\. The workerlog", text)
    assert "resume from the last complete epoch with -r" in text
    assert 1 <= load_checkpoint(cut / "last.pdparams")["epoch"] < 4
    assert run_command(lambda: cli.main(["-r", *argv])) == 2
    assert "other settings of world_size" in capsys.readouterr().err
    done = launch(tmp_path / "resumed", "main.py", "-r", *argv)
    assert done.returncode == 0, done.stdout
    c = load_checkpoint(cut / "last.pdparams")
    assert c["history"] == b["history"]
    for name, array in c["model"].items():
        np.testing.assert_array_equal(array, b["model"][name], err_msg=name)

    weights = ["-e", "-pp", str(two / "last.pdparams")]
    assert launch(tmp_path / "log", "main.py", *weights, *argv).returncode == 0
    (of_two,) = work.glob("evaluate-*")
    assert cli.main([*weights, *argv]) == 0
    (of_one,) = set(work.glob("evaluate-*")) - {of_two}
    tables = [list(csv.reader((d / "confusion.csv").open())) for d in (of_one, of_two)]
    assert tables[0] == tables[1]
    assert sum(int(cell) for row in tables[1][1:] for cell in row[1:]) == 24
    scores = [read_scores(d / "scores.npz") for d in (of_one, of_two)]
    np.testing.assert_array_equal(scores[0].names, scores[1].names)
    np.testing.assert_array_equal(scores[0].labels, scores[1].labels)
    np.testing.assert_allclose(scores[0].logits, scores[1].logits, atol=1e-4)


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (3, 2), (1, 1)])
def test_steps_take_the_same_clips_however_they_are_shared(
    world_size: int, accumulate: int
) -> None:
    """Compared with the batches of a single process without accumulation."""
    plain = StepSampler(100, 4)
    shared = [
        StepSampler(100, 4, rank=rank, world_size=world_size, accumulate=accumulate)
        for rank in range(world_size)
    ]
    for epoch in (0, 7):
        for sampler in (plain, *shared):
            sampler.set_epoch(epoch)
        expected, together = list(plain), world_size * accumulate
        batches = [list(sampler) for sampler in shared]
        for step in range(len(expected) // together):
            for micro in range(accumulate):
                for rank in range(world_size):
                    which = step * together + micro * world_size + rank
                    got = batches[rank][step * accumulate + micro]
                    assert got == expected[which]
        assert {len(own) for own in batches} == {100 // (4 * together) * accumulate}
        assert {s.num_steps for s in shared} == {100 // (4 * together)}
        seen = [clip for own in batches for batch in own for clip in batch]
        assert len(set(seen)) == len(seen) == 100 // (4 * together) * 4 * together
        order = np.arange(100).tolist()
        np.random.RandomState(epoch).shuffle(order)
        assert expected[0] == order[:4]


def test_too_few_clips_for_a_step() -> None:
    assert list(map(len, StepSampler(3, 4))) == [3]
    with pytest.raises(
        UserError, match="15 training clips .* 4 x 2 processes x accumulate 2; lower"
    ):
        StepSampler(15, 4, world_size=2, accumulate=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_clip_is_evaluated_once(workers: int) -> None:
    class Numbers(paddle.io.Dataset):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, n: int) -> np.int64:
            return np.int64(n)

    for size in (1, 2, 7):
        samplers = [eval_sampler(5, 2, rank=r, world_size=size) for r in range(size)]
        loaders = [data_loader(Numbers(), sampler, workers, 8) for sampler in samplers]
        seen = [[n for batch in loader for n in batch.tolist()] for loader in loaders]
        assert seen == [list(range(rank, 5, size)) for rank in range(size)]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_killing_a_process_leaves_no_workers_behind() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KEEP_WORKERS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(workers) == 2
    wait_until(lambda: not any(map(is_running, workers)), "a worker outlives its parent")


def regression(keys: dict[str, Any]) -> tuple[SimpleNamespace, np.ndarray, np.ndarray]:
    """A session of a linear network (4 -> 3) without regularisation; its weight and bias."""
    base = {"optimizer_args.Momentum.momentum": 0.0, "optimizer_args.Momentum.weight_decay": 0.0}
    base |= {"optimizer_args.Momentum.use_nesterov": False, "scheduler_args.cosine.warm_up": 0}
    initializer = Initializer(configs.load("9001", {**base, **keys}))
    network = paddle.nn.Linear(4, 3)
    scheduler = initializer._scheduler(steps_per_epoch=1000)
    optimizer = initializer._optimizer(scheduler, network)
    session = SimpleNamespace(
        config=initializer.config,
        task=initializer.task,
        network=network,
        optimizer=optimizer,
        scheduler=scheduler,
    )
    return session, network.weight.numpy().copy(), network.bias.numpy().copy()


def plain_gradient(
    w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray, smoothing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the mean cross-entropy with label smoothing."""
    scores = np.exp(x @ w + b)
    target = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
    error = (scores / scores.sum(axis=1, keepdims=True) - target) / len(x)
    return x.T @ error, error.sum(axis=0)


@pytest.mark.parametrize(
    ("accumulate", "clip_norm", "smoothing"), [(1, 0, 0), (4, 0, 0), (1, 0.05, 0), (2, 0.05, 0.3)]
)
def test_one_step_by_value(accumulate: int, clip_norm: float, smoothing: float) -> None:
    """Accumulated, clipped and smoothed, against plain NumPy over all clips of the step."""
    rng = np.random.RandomState(0)
    x, y = rng.randn(8, 4).astype(np.float32), rng.randint(0, 3, 8)
    keys = {"accumulate": accumulate, "clip_norm": clip_norm, "label_smoothing": smoothing}
    session, w, b = regression({**keys, "optimizer_args.Momentum.learning_rate": 0.5})
    step = TrainingStep(session)
    dw, db = plain_gradient(w, b, x, y, smoothing)
    norm = np.sqrt((dw**2).sum() + (db**2).sum())
    assert norm > 2 * 0.05
    factor = 0.5 * (clip_norm / norm if clip_norm else 1)
    for rows in np.split(np.arange(8), accumulate):
        clips, labels = paddle.to_tensor(x[rows]), paddle.to_tensor(y[rows])
        _, logits = step.backward(clips, labels)
        assert tuple(logits.shape) == (8 // accumulate, 3)
    assert step.update() == 0.5
    np.testing.assert_allclose(
        session.network.weight.numpy(), w - factor * dw, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(session.network.bias.numpy(), b - factor * db, rtol=1e-5, atol=1e-6)
    assert not session.network.weight.grad.numpy().any(), "the next step begins at zero"


def test_learning_rate_scaling(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    caplog.set_level("INFO")
    keys = {"optimizer_args.Momentum.learning_rate": 0.1, "dataset_args.ntu.train_batch_size": 8}
    assert Initializer(configs.load("9001", keys))._base_rate() == 0.1
    assert "Step: 8 clips = batch 8 x processes 1 x accumulate 1" in caplog.text
    assert "Learning rate: 0.1 (as written)" in caplog.text
    initializer = Initializer(
        configs.load("9001", {**keys, "base_batch_size": 16, "accumulate": 3})
    )
    initializer.world = parallel.World(rank=1, size=4, local_size=2)
    assert initializer._base_rate() == pytest.approx(0.1 * 8 * 4 * 3 / 16)
    assert "Step: 96 clips = batch 8 x processes 4 x accumulate 3" in caplog.text
    assert "Learning rate: 0.6 (0.1 x 96 / 16)" in caplog.text


def test_what_only_a_gpu_does_is_refused_on_the_cpu(
    tiny_keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["-c", "9001", "-np"]
    for extra, message in (
        (
            ["--amp", "bf16", *tiny_keys],
            "amp is 'bf16', but this run is on the CPU, where it has no",
        ),
        ([*tiny_keys, "sync_bn=true"], "sync_bn is true, but this run is on the CPU"),
        (["--amp", "fp16", "-e", "-pp", "x", *tiny_keys], "amp is for training only"),
    ):
        assert run_command(lambda extra=extra: cli.main([*argv, *extra])) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_sync_bn_keeps_names_and_values(tiny_keys: list[str], monkeypatch) -> None:
    """The network is only built here: it cannot run on a CPU."""
    keys = configs.parse_set(tiny_keys[1:])
    plain = Initializer(configs.load("9001", keys)).for_training(load_weights=False).network
    monkeypatch.setattr(parallel, "on_gpu", lambda: True)
    config = configs.load("9001", {**keys, "sync_bn": True})
    session = Initializer(config).for_training(load_weights=False)
    assert any(isinstance(p, paddle.nn.SyncBatchNorm) for p in session.network.sublayers())
    assert not any(isinstance(p, paddle.nn.BatchNorm2D) for p in session.network.sublayers())
    state = session.network.state_dict()
    assert list(state) == list(plain.state_dict())
    for name, tensor in plain.state_dict().items():
        np.testing.assert_array_equal(state[name].numpy(), tensor.numpy(), err_msg=name)


def test_amp_covers_the_forward_pass_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto_cast is replaced by a mock; its effect was never tested on a GPU."""
    seen: list[str] = []

    class Cast:
        def __init__(self, dtype: str) -> None:
            seen.append(dtype)

        def __enter__(self) -> None:
            seen.append("in")

        def __exit__(self, *_: object) -> None:
            seen.append("out")

    session, _, _ = regression({"amp": "bf16"})
    forward = session.network.forward
    monkeypatch.setattr(
        session.network,
        "forward",
        lambda x: (seen.append("forward"), forward(x).astype("float64"))[1],
    )
    monkeypatch.setattr(paddle.amp, "auto_cast", Cast)
    step = TrainingStep(session)
    assert step.scaler is None
    _, logits = step.backward(paddle.ones([2, 4]), paddle.to_tensor([0, 1]))
    assert seen == ["bfloat16", "in", "forward", "out"] and logits.dtype == paddle.float32


def set_world(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(size))
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", str(size))


def test_commands_of_one_process(monkeypatch, capsys, tiny_keys: list[str]) -> None:
    assert parallel.world() == (0, 1, 1) and parallel.world().main
    set_world(monkeypatch, 1, 2)
    assert parallel.world() == (1, 2, 2) and not parallel.world().main
    for mode in ("-gd", "-ex"):
        assert run_command(lambda mode=mode: cli.main(["-c", "9001", mode])) == 2
        assert f"{mode} runs in one process, and the launcher started 2" in capsys.readouterr().err
    with pytest.raises(UserError, match="give the launcher --devices"):
        parallel.join((0,))


@pytest.mark.parametrize(
    ("before", "flag", "size", "after"),
    [
        (None, None, 2, "4"),
        ("1", None, 3, "2"),  # the launcher's own
        ("3", None, 2, "3"),
        ("1", "1", 2, "1"),
        (None, None, 16, "1"),
        (None, None, 1, None),
    ],
)
def test_processes_share_the_cores(monkeypatch, before, flag, size, after) -> None:
    set_world(monkeypatch, 0, size)
    monkeypatch.setattr(parallel.utils, "num_cores", lambda: 8)
    for name, value in (("OMP_NUM_THREADS", before), ("FLAGS_paddle_num_threads", flag)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    parallel.share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == after
