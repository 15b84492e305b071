"""The first run of a model, in a process of its own. Engines end their process on some damaged
models, or never return: so a model that this machine has neither exported nor run before, with this
engine, runs there once, within limits of time and memory. `user_cache` remembers it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from errors import UserError
from safe_io import file_hash, user_cache

SECONDS = 60.0  # allowed for loading and one clip
MAX_MARKS = 4096


def probe_once(model_file: Path, params_file: Path, engine: str, cpu_threads: int) -> None:
    """Run a model on a dummy input in a process of its own, unless that is known to work. Raises
    UserError where the process fails, dies, or exceeds a limit."""
    mark = _mark(model_file, params_file, engine)
    if mark is None or not os.path.exists(mark):
        _probe(model_file, params_file, engine, cpu_threads)
        mark_as_known(model_file, params_file, [engine])


def mark_as_known(model_file: Path, params_file: Path, engines: Iterable[str]) -> None:
    """Remember that these engines run the model."""
    for engine in engines:
        mark = _mark(model_file, params_file, engine)
        if mark is not None:
            try:
                mark.touch()
                marks = sorted(mark.parent.iterdir(), key=os.path.getmtime)
                for old in marks[: max(len(marks) - MAX_MARKS, 0)]:
                    old.unlink(missing_ok=True)
            except OSError:  # it will be run once more
                return


def _mark(model_file: Path, params_file: Path, engine: str) -> Path | None:
    folder = user_cache("probed")
    if folder is None:
        return None
    hashes = [file_hash(file) for file in (model_file, params_file) if os.path.isfile(file)]
    return folder / hashlib.sha256(" ".join([*hashes, engine]).encode()).hexdigest()


def _probe(model_file: Path, params_file: Path, engine: str, cpu_threads: int) -> None:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "deploy.engines.probe_process"]
    command += [str(model_file), str(params_file), engine, str(cpu_threads), str(os.getpid())]
    env = {**os.environ, "PYTHONPATH": paths}
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{model_file}: no answer within {SECONDS:.0f} s; damaged?") from error
    messages = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == 2 and messages:
        raise UserError(messages[-1].removeprefix("error: "))
    if done.returncode:
        raise UserError(
            f"{model_file} or {params_file.name}: damaged, or not for engine {engine}: a process "
            f"that ran them first ended with code {done.returncode}"
        )
