"""A full disk, a kill at any moment, a second run, memory: nothing half is ever left."""

from __future__ import annotations

import errno
import shutil
import signal
from pathlib import Path

import pytest

import generator
from dataset import writer
from dataset.writer import FILES
from errors import UserError
from generator import generate
from tests.processes import ROOT, is_running, run_python, wait_until
from tests.skeleton_text import (
    DATASET,
    clip_name,
    config_for,
    hashes,
    random_frames,
    skeleton_text,
    some_recordings,
    write_recordings,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "source", some_recordings())


def test_a_disk_that_is_too_small_is_noticed_before_reading(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=12 * 180_000 - 1))
    monkeypatch.setattr(generator, "in_order", None)
    with pytest.raises(UserError, match=r"12 clips need 2.2 MB .*root_folder=PATH"):
        generate(config_for(source, tmp_path / "out"), workers=1, progress=False)


class _FullDisk:
    """A file on a disk that fills up after `room` bytes."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data) -> int:
        self._room -= len(memoryview(data).cast("B"))
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def test_a_disk_that_fills_up_is_named_and_nothing_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = config_for(source, tmp_path / "out")
    before = hashes(generate(config, workers=1, progress=False))
    real = writer.Split
    monkeypatch.setattr(writer, "Split", lambda data, *rest: real(_FullDisk(data, 500_000), *rest))
    with pytest.raises(UserError, match="not enough disk space: 12 clips need 2.2 MB"):
        generate(config, workers=1, progress=False)
    folder = tmp_path / "out" / "original" / DATASET
    assert hashes(folder) == before  # the older set, whole, and no temporary file


KILL = """
import multiprocessing, os, pathlib, signal, sys
sys.path.insert(0, {root!r})
import configs, generator
from dataset import writer

def after(count, function):
    def counted(*args):
        nonlocal count
        count -= 1
        if count < 0:
            print(*(process.pid for process in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return counted

if __name__ == "__main__":
    owner = {{"append": writer.Split, "replace": os, "unlink": pathlib.Path}}[{function!r}]
    if {function!r} == "unlink":
        original = owner.unlink
        owner.unlink = lambda path, missing_ok=False: kill_or(path, missing_ok)
        kill_or = after({count}, original)
    else:
        setattr(owner, {function!r}, after({count}, getattr(owner, {function!r})))
    config = configs.load("2001", {overrides!r})
    generator.generate(config, workers={workers}, progress=False)
"""


def run_until_killed(config_keys: dict, function: str, count: int, workers: int) -> list[int]:
    """Generate in another process, which kills itself at call `count` of a function; returns the
    process numbers that its workers had."""
    script = KILL.format(
        root=str(ROOT), function=function, count=count, overrides=config_keys, workers=workers
    )
    # The workers of the killed process must be able to import the script's main module.
    path = Path(config_keys["dataset_args.ntu.root_folder"]).parent / "kill.py"
    path.write_text(script)
    done = run_python(path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [int(number) for number in done.stdout.split()]


@pytest.mark.parametrize(
    ("function", "count", "workers", "old_set"),
    [
        *(("append", 5, 1, False), ("append", 5, 1, True), ("append", 30, 2, True)),
        *(("replace", 0, 1, False), ("replace", 1, 1, True), ("replace", 4, 1, True)),
        *(("unlink", 0, 1, True), ("unlink", 2, 1, True)),
    ],
)
def test_a_kill_leaves_nothing_half_and_a_rerun_gives_the_same_bytes(
    tmp_path: Path, function: str, count: int, workers: int, old_set: bool
):
    old_source = write_recordings(tmp_path / "old", some_recordings(8))
    new_source = write_recordings(tmp_path / "new", some_recordings(40))
    keys = {"dataset": DATASET, "dataset_args.ntu.root_folder": str(tmp_path / "out")}

    def made_from(source: Path, out: str) -> dict[str, str]:
        return hashes(generate(config_for(source, tmp_path / out), workers=1, progress=False))

    new, old = made_from(new_source, "reference"), {}
    if old_set:
        old = made_from(old_source, "out")
    keys["dataset_args.ntu.synthetic_path"] = str(new_source)
    processes = run_until_killed(keys, function, count, workers)

    folder = tmp_path / "out" / "original" / DATASET
    left = {name: sha for name, sha in hashes(folder).items() if name in FILES}
    assert left.items() <= new.items() or left.items() <= old.items()  # whole, and of one set
    if "manifest.json" in left:
        assert left == old
    assert len(processes) == (workers if workers > 1 else 0)
    wait_until(
        lambda: not any(map(is_running, processes)), "worker processes outlive the killed run"
    )
    assert made_from(new_source, "out") == new  # hashes() sees that no temporary file is left


MEASURE = """
import resource, sys
import configs, generator

config = configs.load("2001", {overrides!r})
generator.generate(config, workers=1, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_set(tmp_path: Path):
    pytest.importorskip("resource")
    one = (
        write_recordings(tmp_path, {"one": skeleton_text(random_frames(0, 1, 1))}) / "one.skeleton"
    )
    keys = {"dataset": DATASET, "dataset_args.ntu.root_folder": str(tmp_path / "out")}
    peaks = []
    for count in (10, 1000):  # 2 MB and 180 MB on the disk
        source = tmp_path / str(count)
        source.mkdir()
        for n in range(count):
            (source / f"{clip_name(1 + n % 50, 1, repeat=1 + n // 50)}.skeleton").symlink_to(one)
        script = MEASURE.format(overrides={**keys, "dataset_args.ntu.synthetic_path": str(source)})
        done = run_python("-c", script)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 30  # MB


def test_temporary_files_of_a_killed_run_are_removed_even_where_they_are_not_overwritten(
    source: Path, tmp_path: Path
):
    folder = tmp_path / "out" / "original" / DATASET
    folder.mkdir(parents=True)
    (folder / ".another_name.npy.part").write_text("left by an older version")
    generate(config_for(source, tmp_path / "out"), workers=1, progress=False)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_a_second_run_in_the_same_folder_is_refused(source: Path, tmp_path: Path):
    pytest.importorskip("fcntl")
    config = config_for(source, tmp_path / "out")
    folder = tmp_path / "out" / "original" / DATASET
    with writer.only_writer(folder), pytest.raises(UserError, match="another run"):
        generate(config, workers=1, progress=False)
    generate(config, workers=1, progress=False)


def test_a_folder_that_cannot_be_made_is_named(source: Path, tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="out/original/synthetic-xsub: cannot be created"):
        generate(config_for(source, tmp_path / "out"), workers=1, progress=False)
