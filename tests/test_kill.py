"""kill -9 at random times during generation, training and saving: every file under its final name
is complete, and a resumed run ends with the same bytes and weights as an uninterrupted one.

$SKELETON_KILLS is the number of kills of each test (default 5), $SKELETON_KILL_SEED chooses other
moments (default 0).
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import configs
from dataset.storage import PHASES, content_hash, open_clips
from dataset.synthetic.recordings import write_recordings
from dataset.writer import FILES
from safe_io import read_yaml
from tests.processes import ROOT
from tests.skeleton_text import hashes
from training.checkpoint import load_checkpoint

KILLS = int(os.environ.get("SKELETON_KILLS", "5"))
SEED = int(os.environ.get("SKELETON_KILL_SEED", "0"))
PATIENCE = 300.0  # seconds, for any one process

Moment = Callable[["Run"], None]  # returns when the process should be killed, or has ended


class Run:
    """main.py in its own process group, with its output in a file."""

    def __init__(self, argv: list[str], output: Path) -> None:
        self.output, self.end = output, time.monotonic() + PATIENCE
        with open(output, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "main.py", *argv],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, holds: Callable[[], bool], pause: float = 0.0005) -> bool:
        """Wait for a condition. Returns whether it held before the process ended."""
        while self.process.poll() is None:
            if holds():
                return True
            assert time.monotonic() < self.end, self.text
            time.sleep(pause)
        return False

    def ends_well(self) -> None:
        self.wait_until(lambda: False, pause=0.01)
        assert self.process.returncode == 0, self.text

    def kill(self) -> bool:
        """Kill it with all of its workers. Returns whether it was still running."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        assert code in (0, -signal.SIGKILL), self.text
        return code != 0


def after(seconds: float) -> Moment:
    def moment(run: Run) -> None:
        end = time.monotonic() + seconds
        run.wait_until(lambda: time.monotonic() >= end)

    return moment


def within_a_save(folder: Path, seconds: float) -> Moment:
    """The given time after the start of writing a checkpoint."""

    def moment(run: Run) -> None:
        def parts() -> set[Path]:
            return set(folder.glob("*/.*.pdparams.*.part"))

        before = parts()
        if run.wait_until(lambda: parts() > before):
            after(seconds)(run)

    return moment


def within_the_renaming(folder: Path, seconds: float) -> Moment:
    """The given time after the first file of an older set is removed or of a new one appears."""

    def moment(run: Run) -> None:
        def names() -> set[str]:
            return {path.name for path in folder.iterdir() if path.suffix != ".part"}

        before = names()
        if run.wait_until(lambda: names() != before):
            after(seconds)(run)

    return moment


def check_data(folder: Path) -> None:
    """Every published file of a data set opens; a manifest implies that all files are complete."""
    files = {path.name for path in folder.iterdir() if path.suffix != ".part"}
    assert files <= set(FILES)
    if "manifest.json" not in files:
        return
    assert files == set(FILES)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for phase in PHASES:
        clips = open_clips(folder / f"{phase}_data.npy")
        assert len(clips) == manifest["clips"][phase] and np.isfinite(clips.data).all()
        assert content_hash(clips.names, clips.labels.tolist()) == manifest["sha256"][phase]


def test_generation(tiny_data: Path, tmp_path: Path) -> None:
    """Half of the kills happen while a complete older set exists, which stays or is replaced as a
    whole; a quarter start with an empty folder."""
    rng = random.Random(SEED)
    folder = tmp_path / "out/original/synthetic-xsub"

    def start(recordings: Path) -> Run:
        keys = [f"root_folder={tmp_path / 'out'}", f"synthetic_path={recordings}"]
        settings = [f"dataset_args.ntu.{key}" for key in keys]
        argv = ["-c", "9001", "-gd", "-np", "--workers", "2", "--set", *settings]
        return Run(argv, tmp_path / "output.txt")

    recordings = tiny_data.parent / "recordings"
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(recordings.iterdir())[::2]:
        (fewer / path.name).symlink_to(path)
    start(fewer).ends_well()
    older = hashes(folder)
    begin = time.monotonic()
    start(recordings).ends_well()
    duration = time.monotonic() - begin
    whole = hashes(folder)
    assert whole.keys() == older.keys() == set(FILES) and whole != older

    kills = 0
    while kills < KILLS:
        if kills % 2 and hashes(folder) != older:
            start(fewer).ends_well()
            assert hashes(folder) == older
        elif kills % 4 == 2:
            for path in folder.iterdir():
                path.unlink()
        run = start(recordings)
        if kills % 3 == 2:
            within_the_renaming(folder, rng.uniform(0, 0.005))(run)
        else:
            after(rng.uniform(0, duration))(run)
        kills += run.kill()
        check_data(folder)
        left = {name: sha for name, sha in hashes(folder).items() if name in FILES}
        assert left.items() <= whole.items() or left.items() <= older.items()
        if "manifest.json" in left:
            assert left in (older, whole)
    start(recordings).ends_well()
    assert hashes(folder) == whole


def check_run(folder: Path) -> None:
    """Every published file of a run is complete."""
    for path in folder.iterdir():
        if path.suffix == ".pdparams":
            content = load_checkpoint(path)
            assert content["epoch"] == len(content["history"]) >= 1 and content["opt"]
        elif path.suffix == ".csv":
            text = path.read_text(encoding="utf-8")
            rows = list(csv.reader(text.splitlines()))
            assert text.endswith("\n") and {len(row) for row in rows} == {len(rows[0])}
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
        elif path.name == "config.yaml":
            assert configs.load(str(path)).dataset_args.ntu.num_frame == 16
        elif path.name == "run.yaml":
            sessions = read_yaml(path.read_text(encoding="utf-8"), str(path))["sessions"]
            assert sessions and all("command" in session for session in sessions)
        else:
            assert path.suffix == ".part" or path.name == "log.txt", f"{path}: no check for it"


def assert_same_run(run_dir: Path, reference: Path) -> None:
    """Weights, optimizer, curves and tables, bit for bit."""
    for name in ("last.pdparams", "best.pdparams"):
        a, b = load_checkpoint(run_dir / name), load_checkpoint(reference / name)
        assert a["history"] == b["history"] and a["epoch"] == b["epoch"]
        for part in ("model", "opt"):
            assert a[part].keys() == b[part].keys()
            for key in a[part]:
                np.testing.assert_array_equal(a[part][key], b[part][key], err_msg=key)
    for name in ("curves.csv", "confusion.csv", "per_class.csv"):
        assert (run_dir / name).read_bytes() == (reference / name).read_bytes()
    names = [{p.name for p in d.iterdir() if p.suffix != ".part"} for d in (run_dir, reference)]
    assert names[0] == names[1]


@pytest.fixture
def training(tmp_path: Path) -> tuple[Path, list[str]]:
    """The folder of runs, and the command line of a run of 4 short epochs of 2 steps."""
    write_recordings(tmp_path / "recordings", subjects=(1, 2), cameras=(2,))
    data = [f"root_folder={tmp_path / 'data'}", f"synthetic_path={tmp_path / 'recordings'}"]
    data += ["num_frame=16", "train_batch_size=6"]
    keys = [f"dataset_args.ntu.{key}" for key in data] + [f"work_dir={tmp_path / 'work'}"]
    keys += ["scheduler_args.cosine.max_epoch=4", "scheduler_args.cosine.warm_up=1"]
    keys += ["model_args.stem_channel=8", "model_args.block_args=[[16,1,0],[16,1,0],[16,2,1]]"]
    argv = ["-c", "9001", "-np", "--set", *keys]
    Run(["-gd", *argv], tmp_path / "output.txt").ends_well()
    return tmp_path / "work/9001_EfficientGCN-B0_synthetic-xsub", argv


@pytest.mark.slow
def test_training(training: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A run is killed up to five times and resumed each time; then another one. Every other kill
    happens while a checkpoint is written, the others at any time."""
    rng = random.Random(SEED)
    parent, argv = training

    def start(*more: str) -> Run:
        return Run([*more, *argv], tmp_path / "output.txt")

    def starts_training(run: Run) -> bool:
        return run.wait_until(lambda: "Starting training" in run.text, pause=0.01)

    run = start()
    assert starts_training(run)
    begin = time.monotonic()
    run.ends_well()
    duration = time.monotonic() - begin
    (reference,) = parent.iterdir()
    check_run(reference)

    kills = 0
    while kills < KILLS:
        current: Path | None = None  # the run to resume
        moments = sorted(rng.uniform(0, duration) for _ in range(min(5, KILLS - kills)))
        waits = [b - a for a, b in zip([0.0, *moments], moments)]
        ended = False
        while not ended:
            run = start("-r") if current else start()
            if waits and starts_training(run):
                wait = waits.pop(0)
                if len(waits) % 2:
                    within_a_save(parent, rng.uniform(0, 0.004))(run)
                else:
                    after(wait)(run)
                kills += run.kill()
            else:
                run.ends_well()
            newest = max(parent.iterdir(), key=lambda folder: folder.name)
            check_run(newest)
            ended = run.process.returncode == 0
            current = newest if (newest / "last.pdparams").is_file() else None
        assert_same_run(current, reference)


def test_a_run_without_a_checkpoint_is_begun_anew(
    training: tuple[Path, list[str]], tmp_path: Path
) -> None:
    parent, argv = training
    run = Run(argv, tmp_path / "output.txt")
    assert run.wait_until(lambda: "Starting training" in run.text) and run.kill()
    (run_dir,) = parent.iterdir()
    check_run(run_dir)
    again = Run(["-r", *argv], tmp_path / "output.txt")
    assert again.process.wait(PATIENCE) == 2
    assert "nothing to resume" in again.text and "has no last.pdparams yet; start" in again.text
