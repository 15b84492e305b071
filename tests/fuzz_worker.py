"""A process that runs fuzz cases, one after the other, and may die of one."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

Outcome = tuple[str, bool]  # what is wrong with it, '' for nothing; whether there was an answer
Case = Callable[[int], Outcome]


def printed_line_of(stderr: Path, code: int) -> str:
    """What is wrong with an exit code and what was printed; '' for one clear line."""
    lines = stderr.read_text(encoding="utf-8", errors="replace").splitlines()
    if code == 2 and len(lines) == 1 and lines[0].startswith("error: "):
        return "out of memory" if "out of memory" in lines[0] else ""
    return f"exit code {code}, prints {lines[-20:]}"


class to_file:  # noqa: N801 - used like a function
    """Within this block the process's stderr, also that of its libraries, goes to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        sys.stderr.flush()
        self.saved = os.dup(2)
        number = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(number, 2)
        os.close(number)

    def __exit__(self, *_: object) -> None:
        sys.stderr.flush()
        os.dup2(self.saved, 2)
        os.close(self.saved)


def _serve(pipe: Connection, prepare: Callable[[Path], Case], base: Path) -> None:
    work = base / f"work-{os.getpid()}"
    work.mkdir(parents=True)
    os.chdir(work)
    os.dup2(os.open("stdout", os.O_WRONLY | os.O_CREAT), 1)
    case = prepare(base)
    pipe.send("ready")
    while True:
        number = pipe.recv()
        try:
            outcome = case(number)
        except Exception as error:  # a bug of the command, or of the case itself
            lines = traceback.format_exc().strip().splitlines()[-4:]
            outcome = f"case {number}: {type(error).__name__}: {error}: {lines}", False
        pipe.send(outcome)


class Worker:
    """prepare: a module's function from the folder of the files to what runs a case."""

    def __init__(self, prepare: Callable[[Path], Case], base: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, prepare, base), daemon=True)
        self.process.start()
        theirs.close()
        assert self.pipe.recv() == "ready"

    def run(self, number: int, seconds: float) -> Outcome:
        self.pipe.send(number)
        try:
            if self.pipe.poll(seconds):
                return self.pipe.recv()
            return f"case {number}: did not end within {seconds:.0f} s", False
        except EOFError:
            self.process.join()
            return f"case {number}: the process died ({self.process.exitcode})", False

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def fuzz(
    prepare: Callable[[Path], Case], base: Path, numbers: Iterable[int], seconds: float
) -> tuple[list[str], int]:
    """Run cases, each within some seconds. Returns everything that was wrong, and the number of
    answers."""
    found: list[str] = []
    answers = 0
    worker = Worker(prepare, base)
    try:
        for number in numbers:
            wrong, answered = worker.run(number, seconds)
            answers += answered
            if wrong:
                found.append(wrong)
            if "did not end" in wrong or "process died" in wrong:
                worker.stop()
                worker = Worker(prepare, base)
    finally:
        worker.stop()
    return found, answers
