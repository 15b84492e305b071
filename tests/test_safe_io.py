"""Whole files, error messages of command lines."""

from __future__ import annotations

import os
import shlex
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import safe_io
from errors import (
    LONGEST,
    LONGEST_PATHS,
    UserError,
    choose,
    nearest_hint,
    one_line,
    printable,
    run_command,
)
from safe_io import read_npz, whole_file
from tests.archives import UNPACKED, archive_of, lying_archive, npy
from tests.processes import run_process, run_python


def test_whole_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with whole_file(target, "w") as file:
        file.write("one")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(RuntimeError), whole_file(target, "w") as file:
        file.write("two")
        raise RuntimeError
    assert target.read_text() == "one"
    assert os.listdir(target.parent) == ["a.txt"]


def test_the_error_names_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), whole_file(tmp_path / "file" / "b"):
        pass
    with pytest.raises(UserError, match="cannot be written"), whole_file("/proc/none/deep/down/b"):
        pass


def test_two_writers_of_one_file_are_independent(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a", "w") as first:
        with whole_file(tmp_path / "a", "w") as second:
            first.write("11111")
            second.write("2")
        assert (tmp_path / "a").read_text() == "2"
    assert (tmp_path / "a").read_text() == "11111" and len(list(tmp_path.iterdir())) == 1


def test_a_closed_pipe_is_no_bug() -> None:
    code = (
        "import errors, sys\ndef main():\n  while True: print('x' * 999)\n"
        "sys.exit(errors.run_command(main))"
    )
    command = f'{sys.executable} -c "{code}" | head -1; exit ${{PIPESTATUS[0]}}'
    done = run_process(["bash", "-c", command])
    assert (done.returncode, done.stderr) == (141, "")


def test_names_are_suggested() -> None:
    assert nearest_hint("ntu_xsub", ["ntu-xsub", "other"]) == "did you mean ntu-xsub?"
    assert nearest_hint("zzz", ["b", "a"]) == "allowed: a, b"
    with pytest.raises(UserError, match="mode is 'c'; allowed: a, b"):
        choose({"b": 1, "a": 2}, "c", "mode")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("how", ["print", "log"])
def test_a_full_disk_is_one_line(how: str) -> None:
    code = (
        "import logging, sys, errors, utils\n"
        "def main():\n"
        "    utils.setup_logging()\n"
        "    {'print': print, 'log': logging.info}[sys.argv[1]]('x' * 10)\n"
        "    return 0\n"
        "sys.exit(errors.run_command(main))"
    )
    words = shlex.join([sys.executable, "-c", code, how])
    done = run_process(["sh", "-c", f"{words} > /dev/full"])
    message = "error: output or temporary files: No space left on device; free space, or set TMPDIR"
    assert (done.returncode, done.stderr) == (2, f"{message}\n")


def test_no_place_for_temporary_files_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys, tempfile, errors\n"
        "tempfile._candidate_tempdir_list = lambda: [sys.argv[1]]\n"
        "sys.exit(errors.run_command(lambda: tempfile.mkdtemp() and 0))"
    )
    done = run_python("-c", code, tmp_path / "none")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "No usable temporary directory" in done.stderr and "set TMPDIR" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="ends processes without a signal")
def test_a_temporary_folder_does_not_outlive_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, safe_io\n"
        "with safe_io.temporary_folder() as folder:\n"
        "    (folder / 'draft').touch()\n"
        "    with safe_io.temporary_folder() as inner:\n"
        "        print(len(list(folder.parent.iterdir())), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = run_python("-c", code, environ={"TMPDIR": str(tmp_path)})
    assert (done.stdout, done.stderr, done.returncode) == ("2\n", "", 128 + 15)
    assert not list(tmp_path.iterdir())


def test_run_command(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise UserError("first\nsecond")

    assert run_command(lambda: 0) == 0
    assert run_command(fails) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_exhausted_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: np.zeros(2**58).size) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory: Unable to allocate 2.00 EiB for an array with")
    assert said.endswith("; use smaller batches, or lower num_frame, max_frame or num_person\n")

    def as_paddle_does() -> int:
        raise MemoryError("(ResourceExhausted) Fail to alloc\n  [Hint: Expected 0]")

    assert run_command(as_paddle_does) == 2
    assert capsys.readouterr().err.startswith("error: out of memory: (ResourceExhausted) Fail to")


def test_errors_of_the_block_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), whole_file(tmp_path / "a.txt", "w"):
        (tmp_path / "other").read_text()
    assert not list(tmp_path.iterdir())


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that a call allocates at once."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_cannot_unpack_to_more_than_they_say(tmp_path: Path, method: int) -> None:
    path = lying_archive(tmp_path / "a.npz", "logits.npy", npy(np.zeros(10)), method)

    def read() -> None:
        with pytest.raises(UserError, match="a.npz: not scores: 'logits.npy' is neither stored"):
            read_npz(path, "scores")

    assert path.stat().st_size < UNPACKED / 1000 and peak_of(read) < UNPACKED / 10


def test_a_lying_deflated_member_is_read_as_far_as_it_says(tmp_path: Path) -> None:
    path = lying_archive(tmp_path / "a.npz", "a.npy", npy(np.zeros(10**6)), zipfile.ZIP_DEFLATED)

    def read() -> None:
        with pytest.raises(UserError, match="a.npz: not scores: "):
            read_npz(path, "scores")

    assert peak_of(read) < UNPACKED / 4  # NumPy reserves the array that the header describes


def test_archives_of_arrays_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = ("a.npy", npy(np.zeros(10**5))), ("b.npy", npy(np.ones(3)))
    path = archive_of(tmp_path / "a.npz", *members)
    assert read_npz(path, "scores").keys() == {"a", "b"}
    monkeypatch.setattr(safe_io, "MAX_NPZ_BYTES", 800_000)
    with pytest.raises(UserError, match="not scores: 800280 bytes unpacked; allowed: 800000"):
        read_npz(path, "scores")
    path = archive_of(tmp_path / "a.npz", members[1], members[1])
    with pytest.raises(UserError, match="not scores: two members have the same name"):
        read_npz(path, "scores")
    path = archive_of(tmp_path / "a.npz", members[1], ("a.npy", b"no array"))
    with pytest.raises(UserError, match="not scores: a is no array"):
        read_npz(path, "scores")


def test_messages_are_one_printable_line_of_bounded_length() -> None:
    forged = one_line("class 'x\nInfer Mean Accuracy: 1\x1b[2J\u202e\ud800\u2028' of 動作")
    assert forged == "class 'x Infer Mean Accuracy: 1\\x1b[2J\\u202e\\ud800 ' of 動作"
    assert printable("a\nb") == "a\\nb" and printable("plain é") == "plain é"
    value = one_line(f"k is '{'v' * 5000}'; allowed: 1 to 9")
    assert len(value) < 200 and value.endswith("; allowed: 1 to 9")
    long = one_line(f"names are {', '.join(map(str, range(500)))}; allowed: two of them")
    assert len(long) <= LONGEST and long.startswith("names are 0, 1")
    assert long.endswith("allowed: two of them") and " ... " in long
    slashes = one_line("/ x " * 10**6)
    assert len(slashes) <= 2 * LONGEST
    assert len(one_line(f"{os.getcwd()}/x " * 10**4)) < 3 * LONGEST_PATHS
    quoted = f"add: --set 'dataset_args.kinetics.class_names={os.getcwd()}/{'x' * 200}'"
    assert one_line(f"{'long ' * 40}{quoted}; or skip it").endswith(f"{quoted}; or skip it")
    command = f"main.py --set {'key=value ' * 99}k=v"  # repeats what the user typed
    kept = one_line(f"{'long ' * 99}: {command}; or skip it", command)
    assert kept.endswith(f" {command}; or skip it") and len(kept) < LONGEST + len(command) + 20
    path = f"{os.getcwd()}/{'deep/' * 100}x.npy"
    assert one_line(f"{path}: no such file").count("...") == 1  # it does not exist
    member = f"{safe_io.__file__}/{'m' * 150}/x.skeleton, line 1"  # as if it were an archive
    assert one_line(f"{member}: {'long ' * 99}").startswith(f"{member}: long ")
    assert "..." in one_line(f"{safe_io.__file__}/{'m' * 300}: damaged")
