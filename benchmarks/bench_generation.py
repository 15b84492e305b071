"""Speed of data generation: reading and pre-normalisation, each compared with its plain form.

python benchmarks/bench_generation.py --source FOLDER_OF_SKELETON_FILES

The plain forms follow public code: they process one joint after another. In every round, each
contender runs once; printed are the median over the rounds and the range.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import common
from errors import UserError, run_command
from reader.ntu.prenormalise import transform
from reader.ntu.reader import parse
from reader.ntu.recordings import Recording, RecordingFiles, find_recordings
from reader.ntu.source import NTUReader
from reader.parallel import in_order
from reader.source import Item

Form = Callable[[np.ndarray], np.ndarray]


def plain_read(path: str) -> np.ndarray:
    """One recording, joint by joint: (C=3, T=300, V=25, M=2) float32."""
    bodies = np.zeros((4, 300, 25, 3), np.float32)
    with open(path, encoding="ascii") as file:
        for t in range(int(file.readline())):
            for slot in range(int(file.readline())):
                file.readline()
                for v in range(int(file.readline())):
                    bodies[slot, t, v] = np.array(file.readline().split()[:3], dtype=np.float32)
    energies = []
    for body in bodies:
        seen = body[body.sum(-1).sum(-1) != 0]
        energies.append(sum(seen[..., c].std() for c in range(3)) if len(seen) else 0)
    return bodies[np.argsort(energies)[::-1][:2]].transpose(3, 1, 2, 0)


def plain_transform(clip: np.ndarray) -> np.ndarray:
    """Pre-normalisation of one clip (C, T, V, M), joint by joint."""
    people = clip.transpose(3, 1, 2, 0).copy()  # M, T, V, C
    for person in people:
        if not person[0].any():  # recorded later: moved to the start, gaps left out
            seen = person[person.any(axis=(1, 2))]
            person[: len(seen)], person[len(seen) :] = seen, 0
        length = int(np.flatnonzero(person.any(axis=(1, 2))).max(initial=-1)) + 1
        for t in range(length, len(person) if length else 0):
            person[t] = person[t - length]
    present = (people != 0).any(axis=-1, keepdims=True)
    people = (people - people[0, :, 1:2].copy()) * present
    for bottom, top, axis in ((0, 1, 2), (4, 8, 0)):
        matrix = rotation_onto(people[0, 0, top] - people[0, 0, bottom], np.eye(3)[axis])
        for person in people:
            for frame in person:
                if frame.any():
                    for v, joint in enumerate(frame):
                        frame[v] = np.dot(matrix, joint)
    return people.transpose(3, 1, 2, 0)


def rotation_onto(vector: np.ndarray, target: np.ndarray) -> np.ndarray:
    normal = np.cross(vector, target)
    sin, cos = np.linalg.norm(normal), vector @ target
    if sin < 1e-6:
        return np.eye(3)
    angle = np.arctan2(sin, cos)
    x, y, z = normal / sin
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def transform_many(clips: np.ndarray, count: int, form: Form = transform) -> None:
    for n in range(count):
        form(clips[n % len(clips)])


def measure_reading(found: Sequence[Recording], num_file: int, rounds: int) -> None:
    """Open, parse and select two persons; workers send the clips to this process. Includes
    starting the workers."""
    many = [Item("", "train", 0, found[n % len(found)]) for n in range(num_file)]
    few = [item.location.where for item in many[: max(num_file // 10, len(found))]]
    print(f"reading, throughput (files/s): {len(few)} files plain, {num_file} ours")

    def ours(workers: int) -> int:
        return sum(1 for _ in in_order(NTUReader(normalise=False).read, many, workers))

    contenders: common.Contenders = {
        "plain, 1 process": (lambda: [plain_read(path) for path in few], len(few)),
        "ours, --workers 1": (lambda: ours(1), num_file),
        "ours, --workers 2": (lambda: ours(2), num_file),
    }
    common.measure(contenders, rounds)


def measure_transform(clips: np.ndarray, num_clip: int, rounds: int) -> None:
    """Transform clips in memory, (N, C, T, V, M). The processes are started before."""
    few = max(num_clip // 200, 1)
    print(f"pre-normalisation, throughput (clips/s): {few} clips plain, {num_clip} ours")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(transform_many, [(clips, 1)] * 2, 1)  # import modules
        half = num_clip // 2
        contenders: common.Contenders = {
            "plain, 1 process": (lambda: transform_many(clips, few, plain_transform), few),
            "ours, 1 process": (lambda: transform_many(clips, num_clip), num_clip),
            "ours, 2 processes": (
                lambda: pool.starmap(transform_many, [(clips, half)] * 2, 1),
                2 * half,
            ),
        }
        common.measure(contenders, rounds)


def check_equal(found: Sequence[Recording]) -> np.ndarray:
    """The clips (N, C, T, V, M). Raises UserError where plain form and ours differ."""
    with contextlib.closing(RecordingFiles()) as files:
        clips = [parse(files.read(recording), recording.where).padded(300) for recording in found]
    for recording, clip in zip(found, clips):
        if not np.array_equal(plain_read(recording.where), clip):
            raise UserError(f"{recording.where}: the plain reader's result differs")
        difference = np.abs(plain_transform(clip) - transform(clip)).max()
        if difference > 1e-5:
            raise UserError(f"{recording.where}: the transforms differ by {difference}")
    return np.stack(clips)


def main() -> int:
    parser = common.new_parser(__doc__, rounds=5)
    parser.add_argument("--source", required=True, help="folder of .skeleton files, LF or CRLF")
    parser.add_argument("--files", type=int, default=2000, help="files to read, with repetitions")
    parser.add_argument("--clips", type=int, default=4000, help="clips to transform")
    args = common.parse(parser, least=2)
    found, _ = find_recordings(args.source, "--source")
    if any(recording.member for recording in found):
        raise UserError(f"--source is {args.source!r}, which contains archives; unpack them first")
    found = found[:100]  # enough variety, and the clips fit into memory
    print(common.machine())
    clips = check_equal(found)
    measure_reading(found, args.files, args.rounds)
    measure_transform(clips, args.clips, args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
