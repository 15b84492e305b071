"""Throughput of the feeder, and what its check for unusable clips costs.

python benchmarks/bench_feeder.py

Clips of 300 frames and two persons become clip tensors of 288 frames and the branches JVB, as in
config 2001, in one process. In every round, each variant runs once; printed are the median over the
rounds, the range and the ratio.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import common
from dataset.pipeline import ClipPipeline, unusable
from dataset.skeletons import skeleton
from dataset.synthetic.clips import make_clips
from errors import run_command

CLIPS = (32, 300, 25, 2)  # N, T, V, M


def main() -> int:
    args = common.parse(common.new_parser(__doc__, rounds=15))
    clips, layout = make_clips(CLIPS, frames=80, persons=2), skeleton("ntu-25")
    pipeline = ClipPipeline("JVB", num_frame=288)

    def features() -> None:
        for clip in clips:
            pipeline.features(pipeline.prepare(clip, layout), layout)

    def checked() -> None:
        for clip in clips:
            unusable(clip)
        features()

    print(f"{common.machine()}; {args.rounds} rounds")
    print("feeder (clips/s)")
    common.measure(
        {"without the check": (features, 32), "with the check": (checked, 32)}, args.rounds
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
