"""Accuracy against the share of a clip that has been seen: a streaming model, and side by side the
clip model of the same weights on truncated clips.

    python tools/early_recognition.py --stream_model step.pdmodel --clip_model xsub.pdmodel \\
        --data_file eval_data.npy --output early.csv --figure early.png

Three kinds of accuracy after the first 10, 20, ... 100 % of each clip's recorded frames:

stream   the running mean of the live stream at this time. Before its first position there is no
         answer: such a clip counts as wrong; `answered` counts the others
flushed  the stream, ended at this time: the clip network on a clip of these frames alone
clip     the clip model on these frames, padded with zeros as in training
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from tqdm import tqdm

from dataset.padding import valid_length
from dataset.storage import ClipSet, open_clips
from deploy.clip_input import ClipInput
from deploy.engines.engine import AUTO, ENGINES
from deploy.meta import StaticMeta, read_meta
from deploy.predictor import Predictor
from deploy.stream_input import whole_clips, without_centring
from deploy.stream_predictor import StreamPredictor
from errors import UserError, run_command
from report import new_figure, save_figure, write_csv
from utils import check_counts, new_parser, num_cores, prepare_environment, setup_logging

SHARES = range(10, 101, 10)  # of the recorded frames, in percent
COLUMNS = ("stream", "flushed", "clip")
CLIPS_AT_ONCE = 16  # streams in parallel; the clip model gets all shares of these clips
# Settings that both models must share, so that they see the same clips.
SHARED = ("pipeline", "skeleton", "clip_persons", "transform", "class_names")


@dataclass(frozen=True)
class Answers:
    """Of N clips after S shares. frames: (N, S) that have been seen. stream, flushed, clip: logits
    (N, S, num_class) float32; those of a stream without an answer are NaN."""

    frames: np.ndarray
    stream: np.ndarray
    flushed: np.ndarray
    clip: np.ndarray

    def answered(self) -> np.ndarray:
        """(S,) clips of which the stream has an answer."""
        return (~np.isnan(self.stream[..., 0])).sum(axis=0)

    def accuracies(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """(S,) top-1 accuracy of each column, 0 to 1. labels: (N,)."""
        found = {}
        for name in COLUMNS:
            logits = getattr(self, name)
            # Of NaN, argmax is 0, which may be the label.
            right = (logits.argmax(axis=2) == labels[:, None]) & ~np.isnan(logits[..., 0])
            found[name] = right.mean(axis=0)
        return found


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--stream_model", type=Path, required=True, help="written by export.py --contract stream")
    add("--clip_model", type=Path, required=True, help="of the same weights, --contract clips")
    add("--data_file", type=Path, required=True, help=".npy, (N, 3, T, V, M) metres")
    add("--label_file", type=Path, help="default: X_label.pkl or X.pkl beside X_data.npy or X.npy")
    add("--output", type=Path, help="write the table to a .csv file")
    add("--figure", type=Path, help="write curves to a .png file")
    add("--engine", choices=ENGINES, default=AUTO, help="of both (default auto: the fastest)")
    add("--cpu_threads", type=int, default=num_cores(), help="default: all cores")
    add("-np", "--no_progress_bar", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    check(args)
    check_models(args.stream_model, args.clip_model)
    clips = open_clips(args.data_file, args.label_file)
    labels = clips.required_labels()
    prepare_environment()
    setup_logging()
    how = {"engine": args.engine, "cpu_threads": args.cpu_threads}
    stream = StreamPredictor.load(args.stream_model, **how)
    check_live(stream.input, args.stream_model)
    stream.check_data(clips)
    clip = Predictor.load(args.clip_model, **how)
    answers = all_answers(stream, clip, clips, progress=not args.no_progress_bar)
    rows = table(answers, labels)
    print(f"{len(clips)} clips; the stream answers after {first_answer(stream)} frames or more")
    print("\n".join(lines(rows, len(clips))))
    if args.output:
        write_csv(args.output, rows)
    if args.figure:
        draw(args.figure, answers, labels)
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises UserError for arguments that are not allowed."""
    check_counts(args, "cpu_threads")
    for flag, suffix in (("output", ".csv"), ("figure", ".png")):
        path = getattr(args, flag)
        if path and path.suffix != suffix:
            raise UserError(f"--{flag} is {path}; allowed: a name that ends in {suffix}")


def check_models(stream_file: Path, clip_file: Path) -> None:
    """Raises UserError unless they are models of these contracts, of the same weights, and for the
    same clips."""
    stream = meta_of(stream_file, "--stream_model", "stream")
    clip = meta_of(clip_file, "--clip_model", "clips")
    hashes = stream.weights_sha256, clip.weights_sha256
    if hashes[0] != hashes[1] or not all(hashes):
        found = [f"{m.weights}, SHA-256 {m.weights_sha256[:12] or 'none'}" for m in (stream, clip)]
        raise UserError(
            f"{stream_file} ({found[0]}) and {clip_file} ({found[1]}) are not of the same trained "
            "weights; export both with the same -pp FILE.pdparams"
        )
    differ = [name for name in SHARED if getattr(stream, name) != getattr(clip, name)]
    if differ:
        raise UserError(
            f"{stream_file} and {clip_file} differ in {', '.join(differ)}; export both with the "
            "same configuration and --set"
        )


def meta_of(file: Path, flag: str, contract: str) -> StaticMeta:
    """The metadata of a model. Raises UserError for a model of another contract."""
    meta = read_meta(file) if os.path.isfile(file) else None
    fix = f"write it with: python export.py --contract {contract} -pp FILE.pdparams -c CONFIG"
    if meta is None:
        raise UserError(f"{flag} is {file}: no such file, or without .meta.yaml; {fix}")
    if meta.contract != contract:
        raise UserError(f"{flag} is {file}, a model of the {meta.contract} contract; {fix}")
    return meta


def check_live(input_: ClipInput, model: Path) -> None:
    """Raises UserError for a model whose clips are prepared as a whole: the first frames of such a
    clip depend on the rest."""
    if reason := whole_clips(input_):
        raise UserError(f"{model}: {reason}, which needs all frames; train without, e.g. -c 4101")


def all_answers(
    stream: StreamPredictor, clip: Predictor, clips: ClipSet, *, progress: bool
) -> Answers:
    """Both models on all clips. Raises UserError, naming the clip, for data that cannot be used."""
    parts: list[Answers] = []
    with tqdm(total=len(clips), unit="clip", disable=not progress) as bar:
        for group in groups(clips, stream.input):
            seen = np.array([frames_seen(frames.shape[1]) for frames in group])
            parts.append(Answers(seen, *play(stream, group, seen), truncated(clip, group, seen)))
            bar.update(len(group))
    names = ("frames", *COLUMNS)
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def groups(clips: ClipSet, input_: ClipInput) -> Iterator[list[np.ndarray]]:
    """The recorded frames (3, T, V, M) of CLIPS_AT_ONCE clips, not centred, T at most the frames of
    the network's clips; an empty clip is one empty frame."""
    whole, group = without_centring(input_), []
    for index in range(len(clips)):
        try:
            frames = whole.prepare(clips.data[index : index + 1], None)[0][0]
        except UserError as error:
            raise UserError(f"{clips.path}, clip {index}: {error}") from error
        group.append(frames[:, : max(valid_length(frames), 1)])
        if len(group) == CLIPS_AT_ONCE or index == len(clips) - 1:
            yield group
            group = []


def frames_seen(length: int) -> list[int]:
    """Frames of a clip of `length` frames after each share, rounded up."""
    return [-(-length * share // 100) for share in SHARES]


def play(
    predictor: StreamPredictor, group: list[np.ndarray], seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, S, num_class) of the running mean, NaN before the first answer, and of the flushed
    streams. Clips run as parallel streams, each of them once. seen: (N, S) frames."""
    names = [str(n) for n in range(len(group))]
    mean = np.full((*seen.shape, len(predictor.class_names)), np.nan, np.float32)
    flushed = np.empty_like(mean)
    before: np.ndarray = np.zeros(len(group), np.int64)
    for column in range(seen.shape[1]):
        ends = seen[:, column]
        new = {
            name: clip[:, start:end]
            for name, clip, start, end in zip(names, group, before, ends)
            if end > start
        }
        for name, answers in predictor.push_all(new).items():
            if answers:
                mean[int(name), column:] = answers[-1].mean  # until a later one replaces it
        flushed[:, column] = list(predictor.clip_logits(names).values())
        before = ends
    for name in names:
        predictor.reset(name)
    return mean, flushed


def truncated(predictor: Predictor, group: list[np.ndarray], seen: np.ndarray) -> np.ndarray:
    """Logits (N, S, num_class) of the clip model on the first frames of each clip, followed by
    zeros. seen: (N, S) frames."""
    _, _, joints, persons = group[0].shape
    frames = predictor.pipeline.num_frame
    clips = np.zeros((*seen.shape, 3, frames, joints, persons), np.float32)
    for rows, clip, ends in zip(clips, group, seen):
        for row, end in zip(rows, ends):
            row[:, :end] = clip[:, :end]
    logits = predictor.run(clips.reshape(-1, *clips.shape[2:]), seen.reshape(-1).tolist()).logits
    return logits.reshape(*seen.shape, -1)


def first_answer(predictor: StreamPredictor) -> int:
    """Frames after which a stream has its first answer."""
    plan = predictor.plan
    return plan.steps(1) * plan.chunk + predictor.input.pipeline.look_ahead


def table(answers: Answers, labels: np.ndarray) -> list[list[str]]:
    """A heading and a row for each share: share, mean of the frames, clips of which the stream has
    an answer, and accuracies, 0 to 1."""
    rows = [["share", "frames", "answered", *COLUMNS]]
    accuracies, answered = answers.accuracies(labels), answers.answered()
    for n, share in enumerate(SHARES):
        values = [f"{accuracies[name][n]:.4f}" for name in COLUMNS]
        frames = f"{answers.frames[:, n].mean():.1f}"
        rows.append([f"{share / 100:.1f}", frames, str(answered[n]), *values])
    return rows


def lines(rows: list[list[str]], count: int) -> list[str]:
    """`table` for the console, in percent. count: of the clips."""
    heading, *others = rows
    found = ["".join(f"{name:>10}" for name in heading)]
    for share, frames, answered, *values in others:
        percent = [f"{100 * float(value):.2f} %" for value in values]
        cells = [f"{100 * float(share):.0f} %", frames, f"{answered}/{count}", *percent]
        found.append("".join(f"{cell:>10}" for cell in cells))
    return found


def draw(path: Path, answers: Answers, labels: np.ndarray) -> None:
    """Curves of the accuracies, and of the clips that are answered."""
    figure = new_figure(5.5, 3.6)
    axes = figure.subplots()
    names = ("stream, running mean", "stream, flushed", "clip model, zero-padded")
    for name, values in zip(names, answers.accuracies(labels).values()):
        axes.plot(SHARES, 100 * values, marker=".", label=name)
    answered = 100 * answers.answered() / len(labels)
    axes.plot(SHARES, answered, color="grey", linestyle=":", label="clips with an answer")
    axes.set(xlabel="recorded frames seen (%)", ylabel="top-1 accuracy (%)", ylim=(0, 102))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(path, figure)


if __name__ == "__main__":
    sys.exit(run_command(main))
