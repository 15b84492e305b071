"""The records in a run's folder: run.yaml, log lines, tables and figures."""

from __future__ import annotations

import hashlib
import platform
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml

import main as cli
from errors import UserError, run_command
from report import read_scores
from tests.processes import run_process
from training import run_folder


def sessions(run_dir: Path) -> list[dict[str, Any]]:
    return yaml.safe_load((run_dir / "run.yaml").read_text())["sessions"]


@pytest.fixture
def quick_keys(tiny_keys: list[str]) -> list[str]:
    """Two epochs of three steps."""
    return [*tiny_keys, "scheduler_args.cosine.max_epoch=2"]


def test_a_run_says_what_it_was(
    quick_keys: list[str], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained, resumed and evaluated: run.yaml by value, and the files that go with it."""
    argv = ["-c", "9001", "-s", "5", "-np", "--log_every", "2", *quick_keys]
    assert cli.main(argv) == 0
    lines = re.findall(r"Epoch: (\d)/2, Batch: (\d)/3, Loss: \d+\.\d{4}, LR: (\d\.\d{4}), Speed: "
                       r"\d+\.\d\d clips/s", capsys.readouterr().out)  # fmt: skip
    assert lines == [("1", "2", "0.0333"), ("2", "2", "0.0750")]
    (run_dir,) = (tmp_path / "work").glob("*/*")
    assert cli.main(["-r", *argv]) == 0
    assert cli.main(["-e", "-pp", str(run_dir / "last.pdparams"), *argv]) == 0

    first, second = sessions(run_dir)
    (evaluation,) = (tmp_path / "work").glob("*/evaluate-eval-*")
    (third,) = sessions(evaluation)
    folder = tiny_data / "original/synthetic-xsub"
    manifest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    for session in (first, second, third):
        age = datetime.now(timezone.utc) - datetime.fromisoformat(session["started"])
        assert timedelta(0) <= age < timedelta(minutes=10)
        assert (session["seed"], session["world_size"], session["device"]) == (5, 1, "cpu")
        assert session["data"]["folder"] == str(folder)
        assert session["data"]["manifest_sha256"] == manifest
        versions = [session[key] for key in ("python", "paddle", "numpy", "platform")]
        assert versions[:2] == [platform.python_version(), paddle.__version__]
        assert versions[2:] == [np.__version__, platform.platform()]
        assert session["git"] == run_folder.git_state(Path(__file__).resolve().parent.parent)
    assert first["command"].startswith("main.py -c 9001 -s 5 -np --log_every 2 --set dataset_args")
    assert second["command"].startswith("main.py -r -c 9001")
    assert first["data"]["clips"] == {"train": 24, "eval": 24}
    assert third["data"]["clips"] == {"eval": 24}
    assert {f.name for f in run_dir.iterdir()} == {
        *("config.yaml", "run.yaml", "log.txt", "last.pdparams", "best.pdparams"),
        *("curves.csv", "curves.png", "confusion.csv", "confusion.png", "per_class.csv"),
    }
    scores = read_scores(evaluation / "scores.npz")
    assert scores.logits.shape == (24, 12)
    right = int((scores.logits.argmax(axis=1) == scores.labels).sum())
    assert f"Top-1 accuracy: {right}/24" in (evaluation / "log.txt").read_text()


def test_data_without_a_manifest_and_a_damaged_record(tmp_path: Path) -> None:
    run_folder.record_session(tmp_path, "main.py", 1, [(tmp_path / "train_data.npy", 3)])
    (session,) = sessions(tmp_path)
    assert session["data"]["manifest_sha256"] is None and session["data"]["clips"] == {"train": 3}
    (tmp_path / "run.yaml").write_text("sessions: 3")
    with pytest.raises(UserError, match="has no list of sessions"):
        run_folder.record_session(tmp_path, "main.py", 1, [(tmp_path / "train_data.npy", 3)])


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revision and dirty flag of a checkout; nothing outside one, below one, or without git."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert run_folder.git_state(tmp_path) is None

    def git(*arguments: str) -> str:
        own = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        done = run_process(["git", *own, *arguments], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    git("init")
    assert run_folder.git_state(tmp_path) is None, "no commit yet"
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-m", "one")
    (tmp_path / "new.txt").write_text("untracked files do not count")
    revision = git("rev-parse", "HEAD")
    assert run_folder.git_state(tmp_path) == {"revision": revision, "dirty": False}
    (tmp_path / "a.txt").write_text("2")
    assert run_folder.git_state(tmp_path) == {"revision": revision, "dirty": True}
    assert run_folder.git_state(tmp_path / "sub") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_folder.git_state(tmp_path) is None, "no git here"


@pytest.mark.slow
def test_resuming_does_not_start_from_the_first_weights(
    quick_keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's config.yaml names its initial weights; -r loads the run's own checkpoint."""
    argv = ["-c", "9001", "-np", *quick_keys, "scheduler_args.cosine.max_epoch=1"]
    argv += ["scheduler_args.cosine.warm_up=0"]
    assert cli.main(argv) == 0
    (first,) = (tmp_path / "work").glob("*/*/last.pdparams")
    assert cli.main(["-pp", str(first), "-ft", *argv]) == 0
    (second,) = set((tmp_path / "work").glob("*/*/last.pdparams")) - {first}
    own = tmp_path / "9001.yaml"
    own.write_text((second.parent / "config.yaml").read_text())
    assert yaml.safe_load(own.read_text())["pretrained_path"] == str(first)
    capsys.readouterr()
    assert run_command(lambda: cli.main(["-r", "-np", "-c", str(own)])) == 0
    assert f"Resuming {second} after epoch 1" in capsys.readouterr().out
    assert len(sessions(second.parent)) == 2 and len(sessions(first.parent)) == 1
