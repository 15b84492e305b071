"""Commands of the project in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Seconds after which anything that these tests start is taken for a hang. Not a limit of speed:
# the slowest command takes a few minutes on two cores.
HANG = 900.0


def run_process(
    command: Iterable[object],
    *,
    cwd: Path = ROOT,
    environ: Mapping[str, str | None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and capture what it prints, as text.

    environ: changes to this process's environment; None removes a variable. Raises
    subprocess.TimeoutExpired when the command hangs.
    """
    changed = {**os.environ, **(environ or {})}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=HANG,
    )


def run_python(
    *argv: object, cwd: Path = ROOT, environ: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[str]:
    """`run_process` of this Python: of a script, of `-c` and code, or of `-m` and a module."""
    return run_process([sys.executable, *argv], cwd=cwd, environ=environ)


def wait_until(holds: Callable[[], bool], message: str) -> None:
    """Wait for a condition. Fails with the message when it never comes to hold."""
    end = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < end, message
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether Linux has that process, and not only its exit code."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
