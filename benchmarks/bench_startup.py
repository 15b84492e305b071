"""Start-up: how long commands take from one prompt of the shell to the next, in fresh processes.

python benchmarks/bench_startup.py

The commands take turns, one of each a round; printed are medians and spread over the rounds, and
the processor's seconds, which tell what another program on the machine has disturbed. Files are in
the system's memory from the first round on. The model is EfficientGCN-B0 with fresh weights, by
person; the clip is one person's of 80 frames. `import paddle` is the floor of whatever runs a
network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timing import machine

from dataset.synthetic.clips import make_clips
from deploy.engines.engine import AUTO, CPU_ENGINES
from errors import UserError, run_command

ROOT = Path(__file__).resolve().parent.parent
CLIP = (1, 300, 25, 2)  # N, T, V, M as in NTU's files
REAL_FRAMES = 80


def run(command: list[str]) -> tuple[float, float]:
    """(seconds, seconds of processors) of one process, which must end well."""
    begin, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - begin, os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    cpu = after.children_user + after.children_system
    return seconds, cpu - before.children_user - before.children_system


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, by name; writes the model and the clip."""
    np.save(folder / "clip.npy", make_clips(CLIP, frames=REAL_FRAMES, persons=1))
    run(["export.py", "-c", "2001", "--per_person", "--save_dir", str(folder)])
    model = str(folder / "2001_fresh.pdmodel")
    infer = ["infer.py", "--model_file", model, "--data_file", str(folder / "clip.npy")]
    found = {
        f"{script} --help": [script, "--help"] for script in ("main.py", "infer.py", "export.py")
    }
    found["import paddle"] = ["-c", "import paddle"]
    for engine in (AUTO, *CPU_ENGINES[".pdmodel"]):
        found[f"infer.py, one clip, {engine}"] = [*infer, "--engine", engine]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.rounds < 1:
        raise UserError(f"--rounds is {args.rounds}; allowed: 1 or more")
    print(f"{machine()}; {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(Path(folder))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
        for _ in range(args.rounds):
            for name, command in todo.items():
                found[name].append(run(command))
    for name, runs in found.items():
        seconds, cpu = zip(*runs)
        spread = f"({min(seconds):.2f} to {max(seconds):.2f})"
        print(f"  {name:30s} {median(seconds):5.2f} s {spread:16s} CPU {median(cpu):5.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
