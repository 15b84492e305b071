"""Every engine that runs a model, side by side: whether they agree, and how fast they are.

python tools/compare_engines.py xsub
python tools/compare_engines.py xsub.pdmodel --data_file data/eval_data.npy --clips 200

Runs all files of the model's name in its folder (xsub.pdmodel, xsub.json, xsub.onnx) on clips of
--data_file, or else on synthetic clips, every second of them with two persons. The exit code is 1
where an engine differs from the first by more than export allows; an engine that cannot run the
model is listed with its reason and does not count. In each round every engine runs all clips once,
from raw clips to logits.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.storage import open_clips
from dataset.synthetic.clips import MAX_PERSON, make_clips
from deploy.engines.engine import SUFFIXES, engines_for
from deploy.exporting.verify import TOLERANCE
from deploy.predictor import Predictor
from errors import UserError, run_command
from utils import check_counts, new_parser, num_cores, num_gpus, prepare_process

REAL_SHARE = 80 / 300  # of a synthetic clip's frames, as in NTU RGB+D on average


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", type=Path, help="a model file, or its path without suffix")
    parser.add_argument("--data_file", type=Path, help=".npy, (N, 3, T, V, M) metres")
    parser.add_argument("--clips", type=int, default=16, help="number of clips, from the first on")
    parser.add_argument("--cpu_threads", type=int, default=num_cores(), help="default: all cores")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    check_counts(args, "clips", "cpu_threads", "rounds")
    files = model_files(args.model)
    prepare_process()
    clips: np.ndarray | None = None
    runs: dict[str, tuple[Predictor, np.ndarray]] = {}
    devices = ("cpu", "gpu") if num_gpus() else ("cpu",)
    for file, engine in [(f, engine) for f in files for engine in engines_for(f.suffix, *devices)]:
        name = f"{engine} ({file.suffix})"
        try:
            predictor = Predictor.load(file, engine=engine, cpu_threads=args.cpu_threads)
            if clips is None:
                clips = clips_for(predictor, args.data_file, args.clips)
            runs[name] = predictor, predictor.run(clips).logits
        except (UserError, RuntimeError) as error:
            if clips is None and args.data_file:
                raise
            print(f"{name} does not run it: {' '.join(str(error).split())[:200]}")
    if clips is None or not runs:
        raise UserError(f"{args.model}: no engine runs it")
    return report(runs, clips, args.rounds)


def model_files(model: Path) -> list[Path]:
    """The files of a model that engines load. Raises UserError where there are none."""
    stem = model.name[: -len(model.suffix)] if model.suffix in SUFFIXES else model.name
    candidates = [model.parent / f"{stem}{suffix}" for suffix in SUFFIXES]
    files = [file for file in candidates if os.path.isfile(file)]
    if not files:
        names = ", ".join(file.name for file in candidates)
        raise UserError(f"{model}: no such model; allowed: one of {names}; export writes them")
    return files


def clips_for(predictor: Predictor, data_file: Path | None, count: int) -> np.ndarray:
    """(N, 3, T, V, M), of the file or synthetic. Raises UserError for data that the model does
    not take."""
    if data_file:
        found = open_clips(data_file)
        predictor.check_data(found)
        return np.array(found.data[:count])
    frames, persons = predictor.pipeline.num_frame, predictor.clip_persons
    shape = (count, frames, predictor.skeleton.num_joint, persons)
    real = max(1, round(REAL_SHARE * frames))
    clips = make_clips(shape, frames=real, persons=1)
    if persons >= MAX_PERSON:
        clips[1::2] = make_clips(shape, frames=real, persons=MAX_PERSON)[1::2]
    return clips


def report(runs: dict[str, tuple[Predictor, np.ndarray]], clips: np.ndarray, rounds: int) -> int:
    """Time the engines and print the table. runs: engine -> (predictor, its logits). Returns 1
    where one of them disagrees with the first, else 0."""
    times: dict[str, list[float]] = {name: [] for name in runs}  # ms
    for _ in range(rounds):
        for name, (predictor, _) in runs.items():
            start = time.perf_counter()
            predictor.run(clips)
            times[name].append(1000 * (time.perf_counter() - start))
    first = next(iter(runs.values()))[1]
    scale = np.abs(first).max()
    print(f"{len(clips)} clips; the largest of the first engine's logits: {scale:.3g}")
    print(f"{'engine':24s} {'difference':>10s} {'top-1 same':>10s} {'median ms':>10s} "
          f"{'spread':>19s} {'clips/s':>9s}")  # fmt: skip
    differing = []
    for name, (_, logits) in runs.items():
        difference = np.abs(logits - first).max()
        same = int((logits.argmax(axis=1) == first.argmax(axis=1)).sum())
        ms = times[name]
        spread = f"{min(ms):.1f} to {max(ms):.1f}"
        print(
            f"{name:24s} {difference:10.1e} {same:6d}/{len(clips):<3d} {median(ms):10.1f} "
            f"{spread:>19s} {1000 * len(clips) / median(ms):9.1f}"
        )
        if not difference <= TOLERANCE * scale:
            differing.append(name)
    if differing:
        print(f"more than {TOLERANCE:.0e} of the largest apart: {', '.join(differing)}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
