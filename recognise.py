"""Who does what, and when: video, a camera, or a raw recording -> a timeline of actions, of the
scene and of each person. Clip networks see windows over time, streaming models one step after
another.

python recognise.py walk.mp4 --model_file xsub.pdmodel --output who.json --video who.mp4
python recognise.py 0 --model_file xsub.pdmodel --show
python recognise.py S001C001P001R001A001.skeleton --model_file xsub.pdmodel --output who.json
python recognise.py openpose/ --model_file kinetics.onnx --unit pixel --image_size 1920 1080
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.engines.engine import AUTO, ENGINES
from errors import UserError, printable, run_command
from safe_io import check_writable, file_hash
from utils import check_counts, new_parser, num_cores, prepare_environment, setup_logging

if TYPE_CHECKING:
    import numpy as np

    from apps.video.recognition import Recogniser
    from apps.video.watcher import Watcher
    from deploy.predictor import Predictor
    from deploy.score_maps import ScoreMapPredictor
    from deploy.stream_predictor import StreamPredictor

    AnyPredictor = Predictor | StreamPredictor | ScoreMapPredictor

FRAME_RATE = 30.0  # of what does not say it
FOCAL = 0.9  # of an ordinary camera, in widths of its image
MOST_FOLLOWED = 6  # people in video
POSE_LAYOUT = "coco-17"
MOST_PERSONS = 10  # of a recording
WINDOW = 3.0  # seconds
LIMITS = {  # of options
    **{"fps": (1, 1000), "window": (0.1, 3600), "hop": (0.01, 3600)},
    **{"focal": (0.1, 10), "most_persons": (1, 100), "threshold": (0, 1)},
}
UNITS = ("metre", "millimetre", "normalised", "pixel")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "source", metavar="SOURCE",
        help="video, number of a camera, folder of images; .skeleton, .npy, .npz, .csv, Kinetics "
        ".json, folder of OpenPose's .json files",
    )  # fmt: skip
    parser.add_argument("--model_file", type=Path, required=True, help=".pdmodel, .json or .onnx")
    parser.add_argument("--params_file", type=Path, help="default: .pdiparams beside the model")
    parser.add_argument("--output", type=Path, help="timeline as .json, .csv or .srt (subtitles)")
    parser.add_argument(
        "--video", type=Path, help="the skeletons and what they do, as .gif or .mp4"
    )
    data = parser.add_argument_group("what SOURCE is, where it does not say so itself")
    data.add_argument(
        "--fps", type=float, help=f"frames/s of images or a recording (default {FRAME_RATE:g})"
    )
    data.add_argument("--unit", choices=UNITS, default="", help="default metre; 2-D: normalised")
    data.add_argument(
        "--image_size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="for pixels"
    )
    pose = parser.add_argument_group("pose, in video")
    pose.add_argument(
        "--mirrored", action="store_true", help="left is right, as in NTU's video and selfie views"
    )
    pose.add_argument(
        "--focal", type=float, help=f"focal length / width of the image (default {FOCAL})"
    )
    pose.add_argument("--most_persons", type=int, help=f"people followed (default {MOST_FOLLOWED})")
    pose.add_argument(
        "--pose_model",
        type=Path,
        help=".onnx of MoveNet MultiPose or YOLO-pose",
    )
    pose.add_argument("--pose_layout", help=f"its joints (default {POSE_LAYOUT})")
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
    run.add_argument("--show", action="store_true", help="a window with the picture of --video")
    run.add_argument("--topk", type=int, default=5, help="classes listed (default %(default)s)")
    run.add_argument("-np", "--no_progress_bar", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    check(args)
    from tqdm import tqdm

    from apps.video import output
    from apps.video.drawing import Painter
    from apps.video.frames import open_media
    from apps.video.play import Stopwatch, of_recording, play
    from apps.video.session import Session
    from apps.video.timeline import Smoothing, write

    prepare_environment()
    setup_logging()
    watch = Stopwatch()
    rate = args.fps or FRAME_RATE
    media = open_media(args.source, rate) if is_media(args) else None
    rate = media.frame_rate if media else rate
    predictor = load(args, rate)
    if media:
        watcher = watcher_of(args, predictor, rate)
        frames, total = watcher.frames(media, watch), media.num_frame
    else:
        positions = positions_of(args, predictor)
        frames = of_recording(positions, predictor.input.pipeline.num_axis == 3)
        total = positions.shape[1]
    smoothing = Smoothing(args.threshold, args.hold)
    session = Session(recogniser_of(args, predictor, rate), predictor.class_names, smoothing, rate)
    is_drawn = args.video or args.show
    painter = Painter(predictor.input.skeleton, session) if is_drawn else None
    bar = tqdm(frames, total=total, unit="frame", disable=args.no_progress_bar)
    images = play(bar, session, painter, watch)
    if args.show:
        images = output.shown(images, args.source)
    if args.video:
        output.write_video(args.video, images, rate)
    for _ in images:
        pass
    tree = {
        "source": args.source,
        "model": file_hash(args.model_file),
        "engine": predictor.engine.name,
        "frame_rate": rate,
        **session.finish(args.topk),
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

    check_counts(args, "cpu_threads", "topk", "hold")
    for name, (low, high) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name} is {value:g}; allowed: {low:g} to {high:g}")
    if args.image_size and not all(1 <= side <= 100_000 for side in args.image_size):
        raise UserError("--image_size: allowed: WIDTH HEIGHT in pixels, 1 to 100000")
    for path, check_name in ((args.output, check_output), (args.video, check_video)):
        if path:
            check_name(path)
            check_writable(path, args.source, args.model_file)


def is_media(args: argparse.Namespace) -> bool:
    """Whether SOURCE is video, not a recording. Raises UserError for flags of the other kind."""
    from apps.video.frames import has_images, is_camera
    from reader.recording import KINDS

    path = Path(args.source)
    if os.path.isdir(path):
        is_video = has_images(path)
        has_rate = False
    else:
        is_video = is_camera(args.source) or path.suffix not in KINDS
        has_rate = is_video
    if has_rate and args.fps:
        raise UserError(f"{args.source}: has its own frame rate; leave out --fps")
    if is_video and (args.unit or args.image_size):
        raise UserError(f"{args.source}: --unit and --image_size are for recordings")
    for name in ("mirrored", "focal", "most_persons", "pose_model"):
        if not is_video and getattr(args, name):
            raise UserError(f"{args.source}: --{name} is for video")
    if args.pose_layout and not args.pose_model:
        raise UserError("--pose_layout needs --pose_model")
    return is_video


def watcher_of(args: argparse.Namespace, predictor: AnyPredictor, rate: float) -> Watcher:
    """Who finds the people in images."""
    from apps.video.other_pose import OtherPose
    from apps.video.pose import PoseEstimator
    from apps.video.watcher import Pose, Watcher

    is_3d = predictor.input.pipeline.num_axis == 3
    if not is_3d and (args.mirrored or args.focal):
        raise UserError("--mirrored and --focal are for models in metres")
    threads, most = args.cpu_threads, args.most_persons or MOST_FOLLOWED
    pose: Pose
    if args.pose_model:
        other = OtherPose(args.pose_model, args.pose_layout or POSE_LAYOUT, threads, most)
        pose = PoseEstimator.load(threads, most, finder=other) if is_3d else other
    else:
        pose = PoseEstimator.load(threads, most)
    layout, how = (
        predictor.input.skeleton,
        {"focal": args.focal or FOCAL, "mirrored": args.mirrored},
    )
    return Watcher(pose, layout, rate, is_3d=is_3d, **how)


def load(args: argparse.Namespace, rate: float) -> AnyPredictor:
    """The model, by windows or by steps, as its metadata says."""
    from deploy.meta import read_meta
    from deploy.predictor import Predictor
    from deploy.score_maps import CONTRACT, ScoreMapPredictor
    from deploy.stream_predictor import StreamPredictor

    meta = read_meta(args.model_file)
    how: dict[str, Any] = {
        "params_file": args.params_file,
        "engine": args.engine,
        "cpu_threads": args.cpu_threads,
    }
    if meta and meta.stream:
        return StreamPredictor.load(args.model_file, window=window_of(args, rate), **how)
    if meta and meta.contract == CONTRACT:
        return ScoreMapPredictor.load(args.model_file, **how)
    return Predictor.load(args.model_file, **how)


def window_of(args: argparse.Namespace, rate: float) -> int:
    """Frames of --window."""
    return max(round((args.window or WINDOW) * rate), 1)


def positions_of(args: argparse.Namespace, predictor: AnyPredictor) -> np.ndarray:
    """(3, T, V, M) of the recording, T as long as it is."""
    from deploy.stream_input import whole_clips
    from reader.recording import form_of, is_recording, read_recording

    if predictor.meta and predictor.meta.stream and (reason := whole_clips(predictor.input)):
        raise UserError(f"{args.model_file}: cannot take frames as they come: {reason}")
    path = Path(args.source)
    if path.suffix == ".npy" and os.path.isfile(path) and not is_recording(path):
        raise UserError(f"{args.source}: a data file of clips; use infer.py --data_file")
    form = form_of(
        predictor.input.skeleton,
        MOST_PERSONS,
        is_3d=predictor.input.pipeline.num_axis == 3,
        unit=args.unit,
        image_size=tuple(args.image_size) if args.image_size else None,
    )
    return read_recording(path, form)


def recogniser_of(args: argparse.Namespace, predictor: AnyPredictor, rate: float) -> Recogniser:
    """By windows or by steps, as the model wants it."""
    from apps.video.recognition import Maps, Steps, Windows
    from deploy.score_maps import ScoreMapPredictor
    from deploy.stream_predictor import StreamPredictor

    size, hop = window_of(args, rate), max(round(args.hop * rate), 1)
    if isinstance(predictor, StreamPredictor):
        return Steps(predictor, size)
    if args.window is None:
        size = min(size, predictor.input.pipeline.num_frame)
    if isinstance(predictor, ScoreMapPredictor):
        return Maps(predictor, size, hop)
    return Windows(predictor, size, hop)


def show(tree: dict[str, Any]) -> None:
    """The best classes, then '0.0 to 3.4 s, scene: drink water 0.981' for each segment."""
    best = ", ".join(f"{top['name']} {top['probability']:.3f}" for top in tree["top"])
    print(printable(f"{tree['source']}: {best or 'nobody is there for long enough'}"))
    for row in [*tree["scene"], *tree["persons"]]:
        who = f"person {row['person']}" if "person" in row else "scene"
        span = f"{row['start']:.1f} to {row['end']:.1f} s"
        print(printable(f"  {span}, {who}: {row['label']} {row['confidence']:.3f}"))


if __name__ == "__main__":
    sys.exit(run_command(main))
