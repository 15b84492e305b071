"""Memory of a server: resident megabytes while clips of many lengths go through static inference.

python benchmarks/bench_memory.py
python benchmarks/bench_memory.py --engines openvino --clips 100000

Each engine has a process of its own, in which one `Predictor` runs one clip after another. The
clips are one person's, real for 30 frames to all of them: their tails are cut, so that an engine
meets every length there is. Some engines keep something for each shape that they have met; memory
is flat once all have come. The model has fresh weights, by person.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timing import machine

from dataset.synthetic.clips import make_clips
from deploy.engines.engine import CPU_ENGINES
from errors import UserError, run_command

ROOT = Path(__file__).resolve().parent.parent
SHORTEST = 30  # real frames
POOL = 300  # different clips
STEPS = 10  # lines an engine


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def export(config: str, settings: list[str], folder: Path) -> Path:
    command = ["export.py", "-c", config, "--per_person", "--save_dir", str(folder)]
    command += ["--set", *settings] if settings else []
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"export.py failed: {done.stderr.strip().splitlines()[-1]}")
    return next(folder.glob("*.pdmodel"))


def watch(model_file: str, engine: str, num_clip: int) -> None:
    """Run the clips, and print the memory ten times."""
    from utils import prepare_process

    prepare_process()
    from deploy.predictor import Predictor

    model = Predictor.load(model_file, engine=engine)
    num_frame = model.pipeline.num_frame
    shape = (1, num_frame, model.skeleton.num_joint, model.clip_persons)
    rng = np.random.default_rng(0)
    lengths = rng.integers(min(SHORTEST, num_frame), num_frame + 1, POOL)
    clips = [make_clips(shape, frames=int(n), persons=1, seed=i) for i, n in enumerate(lengths)]
    line = [f"{resident_megabytes():.0f}"]
    for number in range(1, num_clip + 1):
        model.run(clips[number % POOL])
        if number % max(num_clip // STEPS, 1) == 0:
            line.append(f"{resident_megabytes():.0f}")
    print(f"  {engine:12s} " + " ".join(f"{value:>6s}" for value in line), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engines = CPU_ENGINES[".pdmodel"]
    parser.add_argument("-c", "--config", default="2001")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--engines", nargs="+", choices=engines, default=engines)
    parser.add_argument("--watch", nargs=2, help=argparse.SUPPRESS)  # model, engine: the process
    args = parser.parse_args()
    if args.clips < 1:
        raise UserError(f"--clips is {args.clips}; allowed: 1 or more")
    if args.watch:
        watch(*args.watch, args.clips)
        return 0
    step = max(args.clips // STEPS, 1)
    print(f"{machine()}; MB resident before the first clip, and after every {step}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model = export(args.config, args.set, Path(folder))
        for engine in args.engines:
            command = [sys.executable, __file__, "--watch", str(model), engine]
            subprocess.run([*command, "--clips", str(args.clips)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
