"""A first run of a model in a process of its own. Paddle ends its process on some damaged files:
those exported here carry hashes (deploy/meta.py), others are tried first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from errors import UserError, run_command

SECONDS = 300.0  # allowed for loading and one clip


def try_apart(model_file: Path, params_file: Path, engine: str, cpu_threads: int) -> None:
    """Load a model and run it on zeros, elsewhere. Raises UserError where that process fails,
    dies, or does not come to an end."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [
        sys.executable,
        "-m",
        "deploy.engines.probe",
        model_file,
        params_file,
        engine,
        cpu_threads,
    ]
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{model_file}: no answer within {SECONDS:.0f} s; damaged?") from error
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == 2 and said:
        raise UserError(said[-1].removeprefix("error: "))
    if done.returncode:
        raise UserError(
            f"{model_file} or {params_file.name}: damaged, or not for engine {engine}: a process "
            f"that tried them ended with code {done.returncode}"
        )


def main() -> int:
    """Arguments: those of `try_apart`."""
    from utils import prepare_process

    prepare_process()
    from deploy.engines.engine import open_engine, trial

    model_file, params_file, engine, cpu_threads = sys.argv[1:]
    trial(open_engine(Path(model_file), Path(params_file), engine, int(cpu_threads)))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
