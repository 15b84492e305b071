"""Who does what, and when: a raw recording -> a timeline of actions, of the scene and of each
person. Clip networks see windows over time, streaming models one step after another.

python recognise.py S001C001P001R001A001.skeleton --model_file xsub.pdmodel --output who.json
python recognise.py openpose/ --model_file kinetics.onnx --unit pixel --image_size 1920 1080
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.engines.engine import AUTO, ENGINES
from errors import UserError, run_command
from safe_io import file_hash
from utils import check_least, new_parser, num_cores, prepare_environment, setup_logging

if TYPE_CHECKING:
    import numpy as np

    from apps.video.recognition import Recogniser
    from deploy.predictor import Predictor
    from deploy.stream_predictor import StreamPredictor

MOST_PERSONS = 10  # of a recording
WINDOW = 3.0  # seconds
UNITS = ("metre", "millimetre", "normalised", "pixel")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "source", type=Path, metavar="SOURCE",
        help=".skeleton, .npy, .npz, .csv, Kinetics .json, or a folder of OpenPose's .json files",
    )  # fmt: skip
    parser.add_argument("--model_file", type=Path, required=True, help=".pdmodel, .json or .onnx")
    parser.add_argument("--params_file", type=Path, help="default: .pdiparams beside the model")
    parser.add_argument("--output", type=Path, help="timeline as .json, .csv or .srt (subtitles)")
    parser.add_argument(
        "--video", type=Path, help="the skeletons and what they do, as .gif or .mp4"
    )
    data = parser.add_argument_group("what the numbers of SOURCE mean")
    data.add_argument("--fps", type=float, default=30.0, help="frames/s (default %(default)s)")
    data.add_argument("--unit", choices=UNITS, default="", help="default metre; 2-D: normalised")
    data.add_argument(
        "--image_size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="for pixels"
    )
    time = parser.add_argument_group("over time")
    time.add_argument(
        "--window", type=float,
        help=f"seconds that an answer looks at (default {WINDOW:g}, or the clip of the model)",
    )  # fmt: skip
    time.add_argument(
        "--hop", type=float, default=0.5,
        help="seconds between windows of a clip network (default %(default)s)",
    )  # fmt: skip
    time.add_argument(
        "--threshold", type=float, default=0.3,
        help="probability below which there is no action (default %(default)s)",
    )  # fmt: skip
    time.add_argument(
        "--hold", type=int, default=2,
        help="answers in a row that it takes to change the action (default %(default)s)",
    )  # fmt: skip
    run = parser.add_argument_group("how to run")
    run.add_argument("--engine", choices=ENGINES, default=AUTO, help="default auto: the fastest")
    run.add_argument("--cpu_threads", type=int, default=num_cores(), help="default: all cores")
    run.add_argument("--topk", type=int, default=5, help="classes listed (default %(default)s)")
    run.add_argument("-np", "--no_progress_bar", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    check(args)
    from tqdm import tqdm

    from apps.video import output
    from apps.video.drawing import Painter
    from apps.video.play import Stopwatch, of_recording, play
    from apps.video.session import Session
    from apps.video.timeline import Smoothing, write

    prepare_environment()
    setup_logging()
    watch = Stopwatch()
    predictor = load(args)
    positions = positions_of(args, predictor)
    frames = of_recording(positions, predictor.input.pipeline.num_axis == 3)
    recogniser = recogniser_of(args, predictor)
    smoothing = Smoothing(args.threshold, args.hold)
    session = Session(recogniser, predictor.class_names, smoothing, args.fps)
    painter = Painter(predictor.input.skeleton, session) if args.video else None
    bar = tqdm(frames, total=positions.shape[1], unit="frame", disable=args.no_progress_bar)
    images = play(bar, session, painter, watch)
    if args.video:
        output.write_video(args.video, images, args.fps)
    for _ in images:
        pass
    try:
        found = session.finish(args.topk)
    except UserError as error:
        raise UserError(f"{args.source}: {error}") from error
    tree = {
        "source": str(args.source),
        "model": file_hash(args.model_file),
        "engine": predictor.engine.name,
        "frame_rate": args.fps,
        **found,
    }
    if args.output:
        write(args.output, tree)
    show(tree)
    print(watch.summary(session.count))
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises UserError for arguments that are not allowed."""
    from apps.video.output import check_video
    from apps.video.timeline import check_output

    check_least(args, "cpu_threads", "topk", "hold")
    for name, low, high in (("fps", 1, 1000), ("window", 0.1, 3600), ("hop", 0.01, 3600)):
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name} is {value:g}; allowed: {low:g} to {high:g}")
    if not 0 <= args.threshold <= 1:
        raise UserError(f"--threshold is {args.threshold:g}; allowed: 0 to 1")
    if args.image_size and not all(1 <= side <= 100_000 for side in args.image_size):
        raise UserError("--image_size: allowed: WIDTH HEIGHT in pixels, 1 to 100000")
    if args.output:
        check_output(args.output)
    if args.video:
        check_video(args.video)


def load(args: argparse.Namespace) -> Predictor | StreamPredictor:
    """The model, by windows or by steps, as its metadata says."""
    from deploy.meta import read_meta
    from deploy.predictor import Predictor
    from deploy.stream_predictor import StreamPredictor

    meta = read_meta(args.model_file)
    how: dict[str, Any] = {
        "params_file": args.params_file,
        "engine": args.engine,
        "cpu_threads": args.cpu_threads,
    }
    if meta and meta.stream:
        return StreamPredictor.load(args.model_file, window=window_of(args), **how)
    return Predictor.load(args.model_file, **how)


def window_of(args: argparse.Namespace) -> int:
    """Frames of --window."""
    return max(round((args.window or WINDOW) * args.fps), 1)


def positions_of(args: argparse.Namespace, predictor: Predictor | StreamPredictor) -> np.ndarray:
    """(3, T, V, M) of the recording, T as long as it is."""
    from deploy.stream_input import whole_clips
    from reader.recording import form_of, is_recording, read_recording

    if predictor.meta and predictor.meta.stream and (reason := whole_clips(predictor.input)):
        raise UserError(f"{args.model_file}: cannot take frames as they come: {reason}")
    if args.source.suffix == ".npy" and args.source.is_file() and not is_recording(args.source):
        raise UserError(f"{args.source}: a data file of clips; use infer.py --data_file")
    form = form_of(
        predictor.input.skeleton,
        MOST_PERSONS,
        is_3d=predictor.input.pipeline.num_axis == 3,
        unit=args.unit,
        image_size=tuple(args.image_size) if args.image_size else None,
    )
    return read_recording(args.source, form)


def recogniser_of(args: argparse.Namespace, predictor: Predictor | StreamPredictor) -> Recogniser:
    """By windows or by steps, as the model wants it."""
    from apps.video.recognition import Steps, Windows
    from deploy.stream_predictor import StreamPredictor

    size = window_of(args)
    if isinstance(predictor, StreamPredictor):
        return Steps(predictor, size)
    if args.window is None:
        size = min(size, predictor.pipeline.num_frame)
    return Windows(predictor, size, max(round(args.hop * args.fps), 1))


def show(tree: dict[str, Any]) -> None:
    """The best classes, then '0.0 to 3.4 s, scene: drink water 0.981' for each segment."""
    best = ", ".join(f"{top['name']} {top['probability']:.3f}" for top in tree["top"])
    print(f"{tree['source']}: {best}")
    for row in [*tree["scene"], *tree["persons"]]:
        who = f"person {row['person']}" if "person" in row else "scene"
        span = f"{row['start']:.1f} to {row['end']:.1f} s"
        print(f"  {span}, {who}: {row['label']} {row['confidence']:.3f}")


if __name__ == "__main__":
    sys.exit(run_command(main))
