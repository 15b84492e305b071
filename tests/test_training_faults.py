"""What goes wrong in a training: clips with NaN, diverging weights, no evaluation clips, little
shared memory, logs of every step, and what the best epoch's accuracy says."""

from __future__ import annotations

import csv
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import main as cli
from dataset.feeder import _fits_shared_memory
from errors import run_command
from tests.keypoint_data import body, made, write_folder
from training.checkpoint import load_checkpoint

STGCN = ["-c", "1001", "-d", "synthetic-xsub", "-np"]
BLOCKS = ["model_args.block_args=[[8, 1], [16, 2]]", "model_args.kernel_size=3"]
EPOCHS = ["lr_scheduler=cosine", "scheduler_args.cosine.warm_up=0"]


@pytest.fixture
def keys(tiny_data: Path, tmp_path: Path) -> list[str]:
    """--set arguments of a small ST-GCN, on a copy of the generated data."""
    shutil.copytree(tiny_data / "original", tmp_path / "npy/original")
    group = {"root_folder": tmp_path / "npy", "num_frame": 32, "train_batch_size": 8}
    pairs = [f"dataset_args.ntu.{key}={value}" for key, value in group.items()]
    return ["--set", *pairs, *BLOCKS, *EPOCHS, f"work_dir={tmp_path / 'work'}"]


def last_checkpoint(tmp_path: Path) -> Path:
    (path,) = tmp_path.glob("work/*/*/last.pdparams")
    return path


@pytest.mark.parametrize(("value", "workers"), [(np.nan, 2), (np.inf, 0), (1e12, 0)])
def test_unusable_clips_end_a_training(
    keys: list[str], tmp_path: Path, capsys, value: float, workers: int
) -> None:
    """Paddle's relu of NaN is 0 on the CPU, so the logits would be finite; the loader's processes
    report the clip too."""
    path = tmp_path / "npy/original/synthetic-xsub/train_data.npy"
    data = np.load(path, mmap_mode="r+")
    data[2, :, 10:30, 1, 0] = value
    data.flush()
    argv = [*STGCN, *keys, "scheduler_args.cosine.max_epoch=1"]
    argv += [f"dataset_args.ntu.num_workers={workers}"]
    assert run_command(lambda: cli.main(argv)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    found = "1e+12; allowed: coordinates up to 1e+09" if value == 1e12 else "NaN or infinity"
    assert re.search(r"train_data.npy: clip S\d+\S* holds " + re.escape(found), error)
    assert not list(tmp_path.glob("work/*/*/*.pdparams"))


def test_a_diverging_training_leaves_the_last_finite_checkpoint(
    keys: list[str], tmp_path: Path, capsys
) -> None:
    """The checkpoint of the finite epoch stays, and can be resumed."""
    one = [*keys, "scheduler_args.cosine.max_epoch=2", "dataset_args.ntu.num_workers=0"]
    assert cli.main([*STGCN, *one]) == 0
    kept = last_checkpoint(tmp_path)
    before = kept.read_bytes()
    content = load_checkpoint(kept)
    more = [*one, "scheduler_args.cosine.max_epoch=3"]
    high = "optimizer_args.Momentum.learning_rate=1e12"
    assert run_command(lambda: cli.main([*STGCN, *more, high])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "training diverged; lower" in error
    runs = set(tmp_path.glob("work/*/*/*.pdparams")) - {kept, kept.with_name("best.pdparams")}
    assert all(
        np.isfinite(array).all() for run in runs for array in load_checkpoint(run)["model"].values()
    )
    assert kept.read_bytes() == before and content["epoch"] == 2


def test_training_without_evaluation_clips(tmp_path: Path, capsys) -> None:
    """eval_split: '' trains all epochs; there is no best epoch, and nothing to evaluate."""
    (tmp_path / "source").mkdir()
    rows = [(f"{n}.npy", n % 2, "train") for n in range(4)]
    write_folder(tmp_path / "source", {row[0]: body(n) for n, row in enumerate(rows)}, rows)
    made(tmp_path / "source", tmp_path / "npy", eval_split="")
    group = {"source_path": tmp_path / "source", "root_folder": tmp_path / "npy", "num_class": 2}
    group.update(max_frame=16, num_frame=16, eval_split="", num_workers=0, train_batch_size=4)
    pairs = [f"dataset_args.keypoint.{key}={value}" for key, value in group.items()]
    keys = ["--set", *pairs, *BLOCKS, *EPOCHS, f"work_dir={tmp_path / 'work'}"]
    argv = ["-c", "1001", "-d", "mine", "-np", *keys, "scheduler_args.cosine.max_epoch=2"]
    assert cli.main(argv) == 0
    assert "training without evaluation, no best.pdparams" in capsys.readouterr().out
    last = last_checkpoint(tmp_path)
    assert load_checkpoint(last)["epoch"] == 2 and not last.with_name("best.pdparams").exists()
    rows = list(csv.DictReader((last.parent / "curves.csv").open()))
    assert len(rows) == 2 and all(row["train_loss"] and not row["eval_loss"] for row in rows)
    assert cli.main(["-r", *argv]) == 0
    assert run_command(lambda: cli.main(["-e", "-pp", str(last), *argv])) == 2
    assert "mine has no eval clips; evaluate those of the other" in capsys.readouterr().err
    assert cli.main(["-e", "--split", "train", "-pp", str(last), *argv]) == 0


def test_a_complete_run_ends_at_once_and_says_which_epoch_is_the_best(
    keys: list[str], tmp_path: Path, capsys
) -> None:
    argv = [*STGCN, *keys, "scheduler_args.cosine.max_epoch=2", "dataset_args.ntu.num_workers=0"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    note = r"Tables and figures: epoch [12], the best of 2 evaluated on this split, so their "
    assert re.search(note + "accuracy is optimistic", out)
    assert cli.main(["-r", *argv]) == 0
    out = capsys.readouterr().out
    assert "This run is complete: nothing to resume" in out
    assert "Starting training" not in out and "Finish training" not in out


def test_about_twenty_log_lines_an_epoch_without_a_bar(
    keys: list[str], tmp_path: Path, capsys
) -> None:
    """24 steps: every second one, and the last."""
    one = ["dataset_args.ntu.train_batch_size=1", "dataset_args.ntu.num_workers=0"]
    argv = [*STGCN, *keys, *one, "scheduler_args.cosine.max_epoch=1"]
    assert cli.main(argv) == 0
    steps = re.findall(r"Batch: (\d+)/24", capsys.readouterr().out)
    assert steps == [str(n) for n in range(2, 25, 2)]


def test_shared_memory_is_used_where_it_is_large_enough(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert _fits_shared_memory(needed=32_000_000, free=64_000_000) and not caplog.text
    assert not _fits_shared_memory(needed=33_000_000, free=64_000_000)
    assert "64 MB free, the loader needs up to 66 MB" in caplog.text
