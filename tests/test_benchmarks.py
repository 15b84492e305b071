"""The benchmarks of inference run, and what they print is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def bench(name: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, f"benchmarks/{name}.py", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_startup() -> None:
    done = bench("bench_startup", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^  (\S.*?)  +([\d.]+) s \(", done.stdout, re.MULTILINE))
    engines = ("auto", "openvino", "paddle", "onednn")
    commands = ["main.py --help", "infer.py --help", "export.py --help", "import paddle"]
    assert list(rows) == [*commands, *(f"infer.py, one clip, {name}" for name in engines)]
    assert all(float(seconds) > 0 for seconds in rows.values())


@pytest.mark.parametrize("name", ["bench_startup"])
def test_nonsense_is_refused(name: str) -> None:
    done = bench(name, "--rounds", "0")
    assert done.returncode == 2 and "--rounds is 0; allowed: 1 or more" in done.stderr
