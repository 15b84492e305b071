"""Static inference: predictions, accuracy and speed of an exported model on a clip file; with
--stream, answers and latencies of a streaming model that gets the frames one step at a time.

python infer.py --model_file xsub.pdmodel --data_file tiny_eval.npy
python infer.py --model_file xsub.pdmodel --data_file all.npy --shard 3/8 --output part3.json
python infer.py --stream --model_file step.pdmodel --data_file walk.csv
"""

from __future__ import annotations

import argparse
import re
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

    from deploy.clip_input import ClipInput

UNITS = ("metre", "millimetre", "normalised")  # of a recording


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    files = parser.add_argument_group("files")
    files.add_argument("--model_file", type=Path, required=True, help=".pdmodel, .json or .onnx")
    files.add_argument(
        "--data_file", type=Path, required=True,
        help=".npy, (N, 3, T, V, M) metres; with --stream also a recording",
    )  # fmt: skip
    files.add_argument("--params_file", type=Path, help="default: .pdiparams beside the model")
    files.add_argument(
        "--label_file", type=Path, help="default: X_label.pkl or X.pkl beside X_data.npy or X.npy"
    )
    files.add_argument("--output", type=Path, help="write predictions to a .json or .csv file")
    files.add_argument(
        "--shard", default="1/1", metavar="I/N",
        help="only part I of N of the clips, for job arrays; merge: tools/merge_predictions.py",
    )  # fmt: skip

    files.add_argument(
        "--accept", nargs="+", default=[], metavar="SETTING",
        help="differences between data and model that are deliberate",
    )  # fmt: skip

    run = parser.add_argument_group("how to run")
    run.add_argument("-b", "--batch_size", "--batch-size", type=int, default=16, help="clips")
    run.add_argument(
        "--engine", choices=ENGINES, default=AUTO,
        help="on the CPU (default auto: the fastest that works)",
    )  # fmt: skip
    run.add_argument("--cpu_threads", type=int, default=num_cores(), help="default: all cores")
    run.add_argument("--use_gpu", action="store_true", help="run on GPU 0")
    run.add_argument("--inputs", default="", help="branches of a public port's model (default JVB)")
    run.add_argument("--topk", type=int, default=5, help="classes listed for each clip")
    run.add_argument("--no_cpu_setup", action="store_true", help="skip CPU tuning (MKL, malloc)")
    run.add_argument("--benchmark", action="store_true", help="measure speed instead of predicting")
    live = parser.add_argument_group("streaming models (docs/streaming.md)")
    live.add_argument("--stream", action="store_true", help="play the data as if they were live")
    live.add_argument("--real_frames", action="store_true", help="of a clip without its padding")
    live.add_argument(
        "--unit", choices=UNITS, default="", help="of a recording (default metre; 2-D: normalised)"
    )

    run.add_argument("-np", "--no_progress_bar", action="store_true", help="no lines for batches")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from dataset.storage import open_clips  # here: they would slow down --help
    from deploy import predictions
    from reader.recording import is_recording

    part, parts = check(args)
    if args.stream:
        return stream(args)
    if args.data_file.suffix != ".npy" or is_recording(args.data_file):
        raise UserError(
            f"{args.data_file}: not a data file of clips; for recordings and video: python "
            f"recognise.py {args.data_file} --model_file {args.model_file}"
        )
    clips = open_clips(args.data_file, args.label_file)
    prepare_environment(not args.no_cpu_setup)  # Paddle is imported by engines that need it
    setup_logging()
    shard = predictions.shard_range(len(clips), part, parts)
    job = predictions.Job(
        model=args.model_file,
        data=args.data_file,
        start=shard.start,
        stop=shard.stop,
        engine="gpu" if args.use_gpu else args.engine,
        cpu_threads=args.cpu_threads,
        batch_size=args.batch_size,
        topk=args.topk,
        inputs=args.inputs,
        params=args.params_file,
        labels=args.label_file,
        accept=tuple(args.accept),
    )
    predictor = predictions.load_predictor(job, clips)
    if args.benchmark:
        from deploy.speed import measure

        print(measure(predictor, clips.data, args.batch_size, args.cpu_threads))
        return 0
    show = None if args.no_progress_bar else print_batch
    result = predictions.run_job(job, clips=clips, predictor=predictor, on_batch=show)
    if args.output:
        predictions.write(args.output, result)
    print(predictions.accuracy_line(result))
    return 0


def stream(args: argparse.Namespace) -> int:
    """Play clips or a recording through a streaming model."""
    from dataset.storage import open_clips
    from deploy import predictions
    from deploy.stream_play import Playback
    from deploy.stream_predictor import StreamPredictor
    from reader.recording import is_recording

    prepare_environment(not args.no_cpu_setup)
    setup_logging()
    predictor = StreamPredictor.load(
        args.model_file,
        params_file=args.params_file,
        engine="gpu" if args.use_gpu else args.engine,
        cpu_threads=args.cpu_threads,
    )
    play = Playback(predictor, args.topk, None if args.no_progress_bar else print_answer)
    if is_recording(args.data_file):
        rows = [play.frames(recording_of(args, predictor.input), args.data_file.name)]
    else:
        if args.unit:
            raise UserError("--unit is for recordings; data files are in metres")
        clips = open_clips(args.data_file, args.label_file)
        predictor.check_data(clips, args.accept)
        rows = [play.clip(clips, n, real_frames=args.real_frames) for n in range(len(clips))]
    result = predictions.Part(
        predictor.engine.name,
        file_hash(args.model_file),
        str(args.data_file),
        0,
        len(rows),
        len(rows),
        rows,
    )
    if args.output:
        predictions.write(args.output, result)
    if play.missing:
        print(f"{play.missing} joints were NaN and taken as missing")
    print(play.latency_line())
    print(predictions.accuracy_line(result))
    return 0


def recording_of(args: argparse.Namespace, input_: ClipInput) -> np.ndarray:
    """(3, T, V, M) of --data_file. Raises UserError where its model cannot take a recording."""
    from deploy.stream_input import whole_clips
    from reader.recording import form_of, read_recording

    if args.real_frames or args.label_file:
        raise UserError("--real_frames and --label_file are for data files, not for a recording")
    if reason := whole_clips(input_):
        raise UserError(
            f"{args.model_file}: cannot take a recording as it comes: {reason}; play a data file, "
            "or train without, e.g. -c 4101"
        )
    is_3d = input_.pipeline.num_axis == 3
    form = form_of(input_.skeleton, input_.clip_persons, is_3d=is_3d, unit=args.unit)
    return read_recording(args.data_file, form)


def check(args: argparse.Namespace) -> tuple[int, int]:
    """(I, N) of --shard I/N. Raises UserError for arguments that are not allowed."""
    from dataset.identity import check_accepted
    from deploy.predictions import check_output

    check_accepted(args.accept)
    check_counts(args, "batch_size", "cpu_threads", "topk")
    if args.output:
        check_output(args.output)
        check_writable(args.output, args.data_file, args.model_file)
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", args.shard)
    part, parts = (int(number) for number in match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f"--shard is {args.shard!r}; allowed: I/N, the part from 1 to N, e.g. 3/8")
    if args.stream:
        refused = ("benchmark", "shard", "inputs", "batch_size")
        defaults = {"benchmark": False, "shard": "1/1", "inputs": "", "batch_size": 16}
        if given := [name for name in refused if getattr(args, name) != defaults[name]]:
            raise UserError(f"--stream plays one clip after another; leave out --{given[0]}")
    elif args.real_frames or args.unit:
        raise UserError("--real_frames and --unit need --stream")
    if parts > 1 and (args.output is None or args.output.suffix != ".json" or args.benchmark):
        raise UserError(f"--shard {args.shard} needs --output FILE.json, and no --benchmark")
    return part, parts


def print_answer(name: str, best: dict[str, Any], seconds: float) -> None:
    """'walk.csv, frame 96: drink water 0.981 (3.9 ms)', of the mean over the last positions."""
    latency = f"{1000 * seconds:.1f} ms"
    what = f"{best['name']} {best['probability']:.3f}"
    print(printable(f"{name}, frame {best['frame']}: {what} ({latency})"))


def print_batch(rows: list[dict[str, Any]]) -> None:
    """The public port's line of a batch, and of each clip 'name: drink water 0.981, ...'."""
    predicted, names = [row["top"][0]["class"] for row in rows], [row["name"] for row in rows]
    line = f"Batch action class Predict: {predicted}"
    if "label" in rows[0]:
        labels = [row["label"] for row in rows]
        right = sum(label == best for label, best in zip(labels, predicted))
        line += f" Batch action class True: {labels} Batch Accuracy: {right / len(labels):.4g}"
    print(f"{line} Batch sample Name: {names}")
    for row in rows:
        best = ", ".join(f"{top['name']} {top['probability']:.3f}" for top in row["top"])
        persons = "; ".join(f"person {p['person']}: {p['name']}" for p in row.get("persons", []))
        print(printable(f"  {row['name']}: {best}" + (f" ({persons})" if persons else "")))


if __name__ == "__main__":
    sys.exit(run_command(main))
