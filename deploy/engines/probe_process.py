"""The process of a model's first run (deploy/engines/probe.py)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from deploy.engines.engine import load_engine, probe_engine
from errors import run_command
from utils import prepare_environment

MEMORY = 2 * 2**30  # bytes of data, beside copies of the files
COPIES = 8  # of the files, in memory
STACKS = 2**26  # bytes for each core: every library starts a thread on it
_PR_SET_PDEATHSIG = 1  # prctl: a signal for this process when its parent ends


def limit_process(parent: int, num_byte: int) -> None:
    """Bound this process's memory, and its life by its parent's. On Linux; elsewhere only the time
    is limited, by the parent."""
    if sys.platform != "linux":
        return
    import resource

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (num_byte, num_byte))


def main() -> int:
    """Arguments: those of `probe.probe_once`, and the number of the parent's process."""
    model_file, params_file = map(Path, sys.argv[1:3])
    engine, cpu_threads, parent = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    sizes = [os.path.getsize(f) for f in (model_file, params_file) if os.path.isfile(f)]
    allowed = MEMORY + COPIES * sum(sizes) + STACKS * (os.cpu_count() or 1)
    limit_process(parent, allowed)
    prepare_environment()
    probe_engine(load_engine(model_file, params_file, engine, cpu_threads))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
