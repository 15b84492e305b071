"""`main.py -e --engine`: a checkpoint evaluated through a static engine."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

import configs
import main as cli
from dataset.storage import open_clips
from deploy.predictor import Predictor, Scores
from errors import run_command
from report import read_scores
from tests.small_models import SET, write_weights
from training.checkpoint import load_checkpoint, save_checkpoint


def evaluated(argv: list[str], tmp_path: Path) -> Path:
    """The folder of one evaluation."""
    before = set(tmp_path.glob("work/*/*"))
    assert cli.main(argv) == 0
    (folder,) = set(tmp_path.glob("work/*/*")) - before
    return folder


def table(file: Path) -> np.ndarray:
    return np.array([row[1:] for row in csv.reader(file.open())][1:]).astype(int)


def tell_clips_apart(weights: Path, logits: np.ndarray) -> None:
    """Subtract the mean logits from the last bias, so that several classes are predicted."""
    content = load_checkpoint(weights)
    (name,) = [n for n in content["model"] if n in ("classifier.fc.bias", "fcn.bias")]
    content["model"][name] -= logits.mean(axis=0)
    save_checkpoint(weights, content)


@pytest.mark.parametrize(
    ("config", "engine", "network"),
    [
        ("9001", "openvino", [*SET[1:], "dataset_args.ntu.num_frame=96"]),
        ("1001", "onnxruntime", ["dataset_args.ntu.num_frame=16"]),
    ],
    ids=["EfficientGCN, truncated clips", "ST-GCN, clips too short to truncate"],
)
def test_an_engine_counts_what_dygraph_counts(
    tiny_data: Path,
    tmp_path: Path,
    config: str,
    engine: str,
    network: list[str],
    capsys,
    monkeypatch,
    request,
) -> None:
    if engine == "onnxruntime":
        request.getfixturevalue("converter")
    run, answered = Predictor.run, []  # engines, by batch

    def noted(self: Predictor, clips: np.ndarray, lengths: list[int] | None) -> Scores:
        answered.append(self.engine.name)
        return run(self, clips, lengths)

    monkeypatch.setattr(Predictor, "run", noted)
    keys = [*network, f"dataset_args.ntu.root_folder={tiny_data}", f"work_dir={tmp_path / 'work'}"]
    keys += ["dataset=synthetic-xsub", "dataset_args.ntu.eval_batch_size=7"]
    weights = tmp_path / "w.pdparams"
    write_weights(configs.load(config, configs.parse_set(keys)), weights)
    argv = ["-c", config, "-np", "-e", "-pp", str(weights), "--set", *keys]
    tell_clips_apart(weights, read_scores(evaluated(argv, tmp_path) / "scores.npz").logits)
    capsys.readouterr()
    one, other = (evaluated([*argv, *more], tmp_path) for more in ([], ["--engine", engine]))
    counts = re.findall(r"Top-1 accuracy: .*, Top-5 accuracy: [^,]*,", capsys.readouterr().out)
    assert len(counts) == 2 and counts[0] == counts[1]
    matrix = table(one / "confusion.csv")
    np.testing.assert_array_equal(matrix, table(other / "confusion.csv"))
    assert matrix.sum() == 24 and (matrix.sum(axis=0) > 0).sum() > 1, "several classes occur"
    scores, static = (read_scores(folder / "scores.npz") for folder in (one, other))
    assert scores.names.tolist() == static.names.tolist()
    scale = np.abs(scores.logits).max()
    np.testing.assert_allclose(static.logits, scores.logits, atol=2e-5 * scale)
    assert answered == [engine] * 4, "24 clips in batches of 7, by this engine alone"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--engine paddle is for -e alone"),
        (["-e", "-pp", "w.pdparams", "-g", "0"], "runs on the CPU; leave out -g"),
    ],
)
def test_engine_where_it_is_not_allowed(
    argv: list[str], message: str, tmp_path: Path, capsys
) -> None:
    argv = ["-c", "9001", "--engine", "paddle", *argv, "--set", f"work_dir={tmp_path / 'work'}"]
    assert run_command(lambda: cli.main(argv)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_an_engine_runs_in_one_process(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    argv = ["-c", "9001", "-e", "-pp", "w.pdparams", "--engine", "auto"]
    assert run_command(lambda: cli.main(argv)) == 2
    assert "--engine auto runs in one process" in capsys.readouterr().err


def test_a_broken_clip_is_named(tiny_data: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "npy/original/synthetic-xsub"
    folder.mkdir(parents=True)
    for file in (tiny_data / "original/synthetic-xsub").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = np.load(folder / "eval_data.npy", mmap_mode="r+")
    data[9, 0, 5, 7, 0] = np.nan
    data.flush()
    keys = [*SET, f"dataset_args.ntu.root_folder={tmp_path / 'npy'}", f"work_dir={tmp_path}"]
    keys += ["dataset_args.ntu.eval_batch_size=8"]
    write_weights(configs.load("9001", configs.parse_set(keys[1:])), tmp_path / "w.pdparams")
    argv = ["-c", "9001", "-np", "-e", "-pp", str(tmp_path / "w.pdparams")]
    name = open_clips(folder / "eval_data.npy").names[9]
    for engine in ([], ["--engine", "paddle"]):
        assert run_command(lambda engine=engine: cli.main([*argv, *engine, *keys])) == 2
        assert (
            f"eval_data.npy: clip {name} holds NaN or infinity; remove" in capsys.readouterr().err
        )
