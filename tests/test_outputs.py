"""Where a command writes: not over what it reads."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from errors import run_command


@pytest.mark.parametrize(
    ("command", "suffix", "argv"),
    [
        ("infer", ".json", ["--model_file", "m.pdmodel", "--data_file", "IN", "--output", "OUT"]),
        ("recognise", ".json", ["IN", "--model_file", "m.pdmodel", "--output", "OUT"]),
        ("recognise", ".mp4", ["IN", "--model_file", "m.pdmodel", "--video", "OUT"]),
        ("tools.merge_predictions", ".json", ["IN", "--output", "OUT"]),
        ("tools.fuse_scores", ".npz", ["other.npz", "IN", "--output", "OUT"]),
        ("tools.convert_weights", ".pdparams", ["IN", "-c", "9001", "-o", "OUT"]),
    ],
)
def test_no_command_writes_over_what_it_reads(
    command: str, suffix: str, argv: list[str], tmp_path: Path, capsys
) -> None:
    (tmp_path / f"in{suffix}").write_bytes(b"content")
    (tmp_path / f"link{suffix}").symlink_to(tmp_path / f"in{suffix}")
    for name in (f"in{suffix}", f"link{suffix}"):
        places = {"IN": str(tmp_path / f"in{suffix}"), "OUT": str(tmp_path / name)}
        args = [places.get(word, word) for word in argv]
        assert run_command(lambda args=args: importlib.import_module(command).main(args)) == 2
        error = capsys.readouterr().err
        assert "cannot be written: it is also read" in error and error.count("\n") == 1
    assert (tmp_path / f"in{suffix}").read_bytes() == b"content"
