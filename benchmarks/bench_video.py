"""Video to label on one core: frames per second and the share of each part, start-up, memory.

python benchmarks/bench_video.py VIDEO --model_file xsub.pdmodel
python benchmarks/bench_video.py VIDEO --model_file xsub.pdmodel --endurance 10000

Frames are decoded and scaled to 1280 x 720 before; they are repeated, forwards and backwards, up to
--frames. Times are from a decoded image to the label of the scene and of each person. Start-up is
that of a whole `recognise.py` on a folder with one image, with cached pose networks.
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from PIL import Image

from apps.video.frames import Media, open_media
from apps.video.play import Stopwatch, play
from apps.video.pose import PoseEstimator
from apps.video.recognition import Windows
from apps.video.session import Session
from apps.video.timeline import Smoothing
from apps.video.watcher import Watcher
from benchmarks import common
from deploy.predictor import Predictor
from errors import run_command

SIZE = (1280, 720)
RATE = 30
DISTINCT = 30  # images of the video


def images_of(video: Path, count: int) -> list[np.ndarray]:
    """The first `count` frames, each once, scaled to SIZE."""
    found: list[np.ndarray] = []
    last = None
    for image in open_media(str(video), RATE).images:
        if image is not last:
            found.append(np.asarray(Image.fromarray(image).resize(SIZE)))
        last = image
        if len(found) == count:
            break
    return found


def to_and_fro(images: list[np.ndarray]) -> Iterator[np.ndarray]:
    """For ever, without a jump. Each a view of its own: the same array would not be looked at."""
    for image in itertools.cycle([*images, *images[-2:0:-1]]):
        yield image[:]


class Chain:
    """From image to label, with one thread."""

    def __init__(self, model: Path) -> None:
        self.predictor = Predictor.load(model, cpu_threads=1)

    def run(
        self, images: Iterator[np.ndarray], count: int, report_every: int = 0
    ) -> tuple[Stopwatch, float]:
        """The times of `count` frames, and the mean number of persons. report_every: frames after
        which the peak of the memory is printed."""
        watch, persons = Stopwatch(), 0
        layout, is_3d = self.predictor.skeleton, self.predictor.pipeline.num_axis == 3
        pose = PoseEstimator.load(1, 6)
        watcher = Watcher(pose, layout, RATE, is_3d=is_3d, focal=0.9, mirrored=False)
        recogniser = Windows(self.predictor, 3 * RATE, RATE // 2)
        session = Session(recogniser, self.predictor.class_names, Smoothing(), RATE)
        media = Media(itertools.islice(images, count), RATE, count)
        for frame in watcher.frames(media, watch):
            persons += len(frame.people)
            list(play([frame], session, None, watch))
            if report_every and session.count % report_every == 0:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"  {session.count:8d} {peak:8.0f}", flush=True)
        return watch, persons / count


def start_up(model: Path) -> float:
    """Seconds of a whole command on one image."""
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", SIZE).save(Path(folder, "a.png"))
        begin = time.perf_counter()
        command = [sys.executable, "recognise.py", folder, "--model_file", str(model.absolute())]
        subprocess.run([*command, "-np"], check=True, capture_output=True, cwd=common.ROOT)
        return time.perf_counter() - begin


def main() -> int:
    parser = common.new_parser(__doc__, rounds=5)
    parser.add_argument("video", type=Path)
    parser.add_argument("--model_file", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=300, help="default: 300")
    parser.add_argument("--endurance", type=int, default=0, help="frames over which memory is read")
    args = common.parse(parser, least=0)
    print(common.machine())
    starts = [start_up(args.model_file) for _ in range(args.rounds)]
    print(f"start-up: {median(starts):.2f} s ({min(starts):.2f} to {max(starts):.2f})")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    images = images_of(args.video, DISTINCT)
    chain = Chain(args.model_file)
    rates, shares, persons = [], "", 0.0
    for _ in range(args.rounds):
        watch, persons = chain.run(to_and_fro(images), args.frames)
        spent = sum(seconds for part, seconds in watch.seconds.items() if part != "decoding")
        rates.append(args.frames / spent)
        parts = [(p, s) for p, s in watch.seconds.items() if p != "decoding"]
        shares = ", ".join(f"{part} {100 * seconds / spent:.0f} %" for part, seconds in parts)
    spread = f"{min(rates):.1f} to {max(rates):.1f}"
    print(f"{persons:.1f} persons: {median(rates):.1f} frames/s ({spread}); {shares}")
    if args.endurance:
        print("  frames, peak memory (MB)")
        chain.run(to_and_fro(images), args.endurance, report_every=max(args.endurance // 10, 1))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
