"""Start-up time: wall time of whole commands, each in a new process.

python benchmarks/bench_startup.py

In every round, each command runs once. Printed are the median and the range of the wall time, and
the median CPU time, which other programs on the machine hardly affect. From the first round on, all
files are in the page cache. The model is EfficientGCN-B0 with random weights, exported with
--per_person; the clip has one person and 80 real frames. `import paddle` is the lower bound for any
command that uses Paddle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import configs
from benchmarks import common
from dataset.synthetic.clips import make_clips
from deploy.engines.engine import AUTO, CPU_ENGINES
from errors import run_command

CLIP = (1, 300, 25, 2)  # N, T, V, M as in NTU's files
REAL_FRAMES = 80


def run(command: list[str]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one Python process, without its output."""
    begin, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
    seconds, after = time.perf_counter() - begin, os.times()
    cpu = after.children_user + after.children_system
    return seconds, cpu - before.children_user - before.children_system


def commands(folder: Path) -> dict[str, list[str]]:
    """Name -> command to measure. Writes the model and the clip."""
    np.save(folder / "clip.npy", make_clips(CLIP, frames=REAL_FRAMES, persons=1))
    model = str(common.in_process(common.export_per_person, configs.load("2001"), folder))
    infer = [str(common.ROOT / "infer.py"), "--model_file", model]
    infer += ["--data_file", str(folder / "clip.npy")]
    scripts = ("main.py", "infer.py", "export.py")
    found = {f"{script} --help": [str(common.ROOT / script), "--help"] for script in scripts}
    found["import paddle"] = ["-c", "import paddle"]
    for engine in (AUTO, *CPU_ENGINES[".pdmodel"]):
        found[f"infer.py, one clip, {engine}"] = [*infer, "--engine", engine]
    return found


def main() -> int:
    args = common.parse(common.new_parser(__doc__, rounds=7))
    print(f"{common.machine()}; {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(Path(folder))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
        for _ in range(args.rounds):
            for name, command in todo.items():
                found[name].append(run(command))
    for name, runs in found.items():
        seconds, cpu = zip(*runs)
        print(f"  {name:30s} {common.seconds_text(seconds):24s} CPU {median(cpu):5.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
