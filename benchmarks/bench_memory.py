"""Memory of a server: resident memory while clips of many lengths run through static inference.

python benchmarks/bench_memory.py
python benchmarks/bench_memory.py --engines openvino --clips 100000

Each engine has its own process, in which one `Predictor` runs one clip after another. The clips
have one person and 30 real frames up to all of them; zero-padded tails are truncated, so the
engine runs every possible length. Some engines cache memory for each input shape, so memory must
stop growing after every length has occurred. The model has random weights and is exported with
--per_person.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import configs
from benchmarks import common
from dataset.synthetic.clips import make_clips
from deploy.engines.engine import CPU_ENGINES
from errors import run_command
from utils import prepare_process

SHORTEST = 30  # real frames
POOL = 300  # different clips
STEPS = 10  # measurements per engine


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def watch(model_file: Path, engine: str, num_clip: int) -> None:
    """Run the clips, and print the resident memory after every tenth of them."""
    prepare_process()
    from deploy.predictor import Predictor

    model = Predictor.load(model_file, engine=engine)
    num_frame = model.pipeline.num_frame
    shape = (1, num_frame, model.skeleton.num_joint, model.clip_persons)
    lengths = np.random.default_rng(0).integers(min(SHORTEST, num_frame), num_frame + 1, POOL)
    clips = [make_clips(shape, frames=int(n), persons=1, seed=i) for i, n in enumerate(lengths)]
    line = [resident_megabytes()]
    for number in range(1, num_clip + 1):
        model.run(clips[number % POOL])
        if number % max(num_clip // STEPS, 1) == 0:
            line.append(resident_megabytes())
    print(f"  {engine:12s} " + " ".join(f"{value:6.0f}" for value in line), flush=True)


def main() -> int:
    parser = common.new_parser(__doc__, rounds=0)
    engines = CPU_ENGINES[".pdmodel"]
    parser.add_argument("-c", "--config", default="2001")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--engines", nargs="+", choices=engines, default=engines)
    args = common.parse(parser)
    config = configs.load(args.config, configs.parse_set(args.set))
    step = max(args.clips // STEPS, 1)
    print(f"{common.machine()}; resident MB at the start and after every {step} clips", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model = common.in_process(common.export_per_person, config, Path(folder))
        for engine in args.engines:
            common.in_process(watch, model, engine, args.clips)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
