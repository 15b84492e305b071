"""Probe a model in a subprocess. Paddle ends its process on some damaged files: models exported
here carry hashes (deploy/meta.py), all others are probed before they are loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from errors import UserError, run_command

SECONDS = 300.0  # allowed for loading and one clip


def probe_in_subprocess(model_file: Path, params_file: Path, engine: str, cpu_threads: int) -> None:
    """Load a model and run it on a dummy input. Raises UserError where the process fails, dies, or
    exceeds the time limit."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "deploy.engines.probe"]
    command += [str(model_file), str(params_file), engine, str(cpu_threads)]
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
            f"that probed them ended with code {done.returncode}"
        )


def main() -> int:
    """Arguments: those of `probe_in_subprocess`."""
    from utils import prepare_process

    prepare_process()
    from deploy.engines.engine import open_engine, probe_engine

    model_file, params_file, engine, cpu_threads = sys.argv[1:]
    probe_engine(open_engine(Path(model_file), Path(params_file), engine, int(cpu_threads)))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
