"""Weighted sums of the scores of several networks, such as joint, bone and motion streams.

    python tools/fuse_scores.py JOINT/scores.npz BONE/scores.npz --weights 0.6 0.4
    python tools/fuse_scores.py A/scores.npz B/scores.npz --validate VA/scores.npz VB/scores.npz

An evaluation (main.py -e) writes scores.npz into its folder. Clips are matched by name. As in
2s-AGCN, CTR-GCN and later papers, scores are summed before softmax; --softmax sums probabilities.
--validate finds and uses the weights that classify most clips of other files correctly: one file
for each stream, in the same order.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb, isfinite
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: import from the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from dataset import identity
from errors import UserError, run_command
from report import ClipScores, read_scores, save_scores, write_evaluation
from safe_io import check_writable
from training.tasks import Confusion
from utils import new_parser

MAX_SEARCHED = 7  # streams that --validate supports
WEIGHTS = "weights_sha256"  # key of what a score file says of its network
_MAX_PARTS, _MAX_COARSE = 20, 1200  # of the first grid: parts of 1, points
_REFINEMENTS = 3  # each halves its step


@dataclass(frozen=True)
class Streams:
    """Scores of several networks for the same clips. labels: (N,). scores: (S, N, num_class).
    about: what the first score file says of itself (`ClipScores`)."""

    names: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("files", nargs="+", metavar="SCORES", help="scores.npz of each stream")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--weights", nargs="+", type=float, help="one number for each stream")
    how.add_argument("--validate", nargs="+", metavar="SCORES", help="find weights on these files")
    parser.add_argument(
        "--accept", nargs="+", default=[], metavar="SETTING",
        help="dataset, class_names: differences between the streams that are deliberate",
    )  # fmt: skip
    parser.add_argument("--softmax", action="store_true", help="sum probabilities")
    parser.add_argument("--output", metavar="FILE", help="write the sum's scores (.npz) and tables")
    return parser.parse_args(argv)


def open_streams(files: Sequence[str], *, softmax: bool, accept: Sequence[str] = ()) -> Streams:
    """Read score files and sort their clips into the order of the first.

    Raises UserError where clips, labels, classes or, unless accept names it, the data set differ,
    and where two files are of the same network.
    """
    every = [read_scores(file) for file in files]
    _refuse_same_network(files, every)
    first, *others = every
    about = {key: value for key, value in first.about.items() if key != WEIGHTS}
    for file, other in zip(files[1:], others):
        fix = "Fuse scores of the same clips and classes"
        identity.compare(other.about, about, source=file, other=files[0], fix=fix, accept=accept)
    order = np.argsort(first.names)
    rows = [np.arange(len(order))]
    for file, other in zip(files[1:], others):
        classes, wanted = other.logits.shape[1], first.logits.shape[1]
        if classes != wanted:
            raise UserError(
                f"{file} has {classes} classes, {files[0]} has {wanted}; allowed: scores of the "
                "same classes"
            )
        odd = np.setxor1d(first.names, other.names)
        if len(odd):
            raise UserError(
                f"{file} and {files[0]} do not hold the same clips: {', '.join(odd[:3])} "
                f"{'is' if len(odd) == 1 else 'are'} in one only ({len(odd)} such clips); "
                "evaluate both on the same split"
            )
        row = np.empty(len(order), np.int64)
        row[order] = np.argsort(other.names)
        wrong = first.names[first.labels != other.labels[row]]
        if len(wrong):
            raise UserError(
                f"{file} and {files[0]} have different labels for {len(wrong)} clips, "
                f"{wrong[0]} for one"
            )
        rows.append(row)
    scores = np.stack([stream.logits[row] for stream, row in zip((first, *others), rows)])
    if softmax:
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
    return Streams(first.names, first.labels, scores, about)


def _refuse_same_network(files: Sequence[str], scores: Sequence[ClipScores]) -> None:
    """Raises UserError for two score files of the same weights, which would count twice."""
    seen: dict[str, str] = {}
    for file, each in zip(files, scores):
        values = each.logits[np.argsort(each.names)].tobytes()
        keys = {hashlib.sha256(values).hexdigest(), str(each.about.get(WEIGHTS, file))}
        for key in keys:
            if key in seen:
                raise UserError(
                    f"{seen[key]} and {file} are scores of the same weights, which would count "
                    "twice; give one evaluation of each network"
                )
            seen[key] = file


def fuse(streams: Streams, weights: Sequence[float]) -> np.ndarray:
    """The weighted sum of the streams' scores, (N, num_class) float32. Raises UserError where
    float32 cannot hold it."""
    total = np.tensordot(np.array(weights), streams.scores.astype(np.float64), axes=1)
    with np.errstate(over="ignore", under="ignore"):
        scores = total.astype(np.float32)
    if not np.isfinite(scores).all() or (total.any() and not scores.any()):
        raise UserError(
            f"weights {', '.join(f'{w:g}' for w in weights)}: the sum of the scores is beyond "
            "float32; allowed: weights near 1"
        )
    return scores


def best_weights(streams: Streams) -> tuple[float, ...]:
    """Weights, 0 or more and 1 in total, with which the sum classifies most clips correctly.

    Of the best points of a grid, which contains equal weights, the one nearest to their mean is the
    most robust to new clips. From there the step is halved several times and moved from one stream
    to another while that increases the number of correct clips. Raises UserError for more than 7
    streams.
    """
    num = len(streams.scores)
    if num > MAX_SEARCHED:
        raise UserError(f"{num} streams; --validate supports up to {MAX_SEARCHED}")

    first = streams.scores.argmax(axis=2)  # (S, N)
    undecided_clips = (first != first[0]).any(axis=0)  # where all agree, so does the sum
    labels = streams.labels[undecided_clips]
    undecided = Streams(streams.names[undecided_clips], labels, streams.scores[:, undecided_clips])

    def num_right(shares: Sequence[int]) -> int:
        fused = fuse(undecided, [n / sum(shares) for n in shares])
        return int((fused.argmax(axis=1) == labels).sum())

    grid = np.array(list(_divisions(_num_part(num), num)))
    right = np.array([num_right(shares) for shares in grid])
    good = grid[right == right.max()]
    best = good[((good - good.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    for _ in range(_REFINEMENTS):
        best = [2 * n for n in best]
        while True:
            better = max([best, *_moves(best)], key=num_right)  # itself where none helps
            if better is best:
                break
            best = better
    return tuple(n / sum(best) for n in best)


def _num_part(num: int) -> int:
    """The parts into which the first grid divides 1: a multiple of the number of streams, so that
    it contains equal weights."""
    fine = range(num, _MAX_PARTS + 1, num)
    return max((n for n in fine if comb(n + num - 1, num - 1) <= _MAX_COARSE), default=num)


def _divisions(parts: int, num: int) -> Iterator[tuple[int, ...]]:
    """Every distribution of that many parts over `num` streams."""
    if num == 1:
        yield (parts,)
        return
    for own in range(parts + 1):
        for rest in _divisions(parts - own, num - 1):
            yield (own, *rest)


def _moves(shares: list[int]) -> Iterator[list[int]]:
    """Every move of one part from one stream to another."""
    for giver, taker in itertools.permutations(range(len(shares)), 2):
        if shares[giver]:
            moved = list(shares)
            moved[giver] -= 1
            moved[taker] += 1
            yield moved


def accuracies(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of (N, num_class) scores, 0 to 1."""
    counts = Confusion(scores.shape[1])
    counts.add(scores, labels)
    return counts.num_top1 / counts.num_sample, counts.num_top5 / counts.num_sample


def table(files: Sequence[str], streams: Streams, sums: dict[str, Sequence[float]]) -> str:
    """Accuracies of each stream and of each sum. sums: name -> weights."""
    entries = [(file, scores, "") for file, scores in zip(files, streams.scores)]
    for name, weights in sums.items():
        entries.append((name, fuse(streams, weights), " ".join(f"{w:.4g}" for w in weights)))
    rows = [("", "top-1", "top-5", "weights")]
    for name, scores, text in entries:
        top1, top5 = accuracies(scores, streams.labels)
        rows.append((name, f"{100 * top1:.2f} %", f"{100 * top5:.2f} %", text))
    width = max(len(name) for name, *_ in rows)
    return "\n".join(f"{n:{width}}  {a:>8}  {b:>8}  {w}".rstrip() for n, a, b, w in rows)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    _check_arguments(args)
    streams = open_streams(args.files, softmax=args.softmax, accept=args.accept)
    num = len(args.files)
    weights: Sequence[float] = [1 / num] * num
    sums: dict[str, Sequence[float]] = {"sum, equal weights": weights}
    if args.weights:
        weights = sums["sum, given weights"] = args.weights
    elif args.validate:
        other = open_streams(args.validate, softmax=args.softmax, accept=args.accept)
        if other.scores.shape[2] != streams.scores.shape[2]:
            files = f"{args.validate[0]} and {args.files[0]}"
            raise UserError(f"{files} differ in the number of classes")
        weights = sums["sum, best weights"] = best_weights(other)
        top1, _ = accuracies(fuse(other, weights), other.labels)
        print(f"best weights: {100 * top1:.2f} % of the {len(other.names)} clips of --validate")
        if seen := len(np.intersect1d(streams.names, other.names)):
            print(
                f"note: {seen} of the clips below are among them: their accuracy with these "
                "weights is not that of unseen clips"
            )
    kind = "probabilities" if args.softmax else "scores before softmax"
    print(f"{len(streams.names)} clips, {streams.scores.shape[2]} classes; sums of {kind}")
    print(table(args.files, streams, sums))
    if args.output:
        write(Path(args.output), streams, fuse(streams, weights))
        print(f"{args.output}: written with the weights of the last line, tables beside it")
    return 0


def write(path: Path, streams: Streams, scores: np.ndarray) -> None:
    """Write the sum (N, num_class) as a score file X.npz, and its tables and figure beside it as
    X_confusion.csv, X_per_class.csv and X_confusion.png."""
    save_scores(path, ClipScores(streams.names, streams.labels, scores, streams.about))
    counts = Confusion(scores.shape[1])
    counts.add(scores, streams.labels)
    names = streams.about.get("class_names") or [f"class {n}" for n in range(scores.shape[1])]
    write_evaluation(path.parent, counts.matrix, names, prefix=f"{path.stem}_")


def _check_arguments(args: argparse.Namespace) -> None:
    identity.check_accepted(args.accept)
    num = len(args.files)
    if num < 2:
        raise UserError("1 score file; allowed: 2 or more")
    for flag, values in (("--weights", args.weights), ("--validate", args.validate)):
        if values is not None and len(values) != num:
            raise UserError(f"{flag} has {len(values)} entries for {num} score files")
    weights = args.weights or [1.0]
    if not (all(isfinite(w) and w >= 0 for w in weights) and any(weights)):
        raise UserError(f"--weights are {args.weights}; allowed: 0 or more, and not all 0")
    if args.output and not args.output.endswith(".npz"):
        raise UserError(f"--output is {args.output!r}; allowed: a name that ends in .npz")
    if args.output:
        check_writable(args.output, *args.files, *(args.validate or []))


if __name__ == "__main__":
    sys.exit(run_command(main))
