"""Identity switches of the tracker of persons, beside norfair and ByteTrack if they are there.

python benchmarks/bench_tracking.py [--source FOLDER_OF_SKELETON_FILES]
pip install norfair==2.1.1 trackers  # optional, in an environment of their own

In each scene, 3-D skeletons (recorded ones, or synthetic) walk across an image of 1920 x 1080
pixels and cross in its middle. Their joints are projected, with noise; persons are missing for some
frames, and listed in random order. A switch is a person with another identity than in the frame in
which it was last seen; a person is unassigned where a tracker gives it no identity.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import common
from dataset.synthetic.recordings import ACTIONS, SUBJECTS, recording
from errors import run_command
from reader.ntu.reader import parse
from reader.ntu.recordings import RecordingFiles, find_recordings
from reader.tracking import Tracker

WIDTH, HEIGHT, FOCAL = 1920, 1080, 1081  # pixels; the colour camera of Kinect v2
NUM_FRAME = 90
NOISE = 4.0  # standard deviation, pixels
GAPS, LONGEST_GAP = 2, 15  # of each person, frames

# People of one frame, (V, 2) pixels each, -> the identity of each, None: unassigned.
Update = Callable[[list[np.ndarray]], Sequence[int | None]]


class Scene(NamedTuple):
    """frames: people of each frame, (V, 2) pixels. truth: which person each of them is."""

    frames: list[list[np.ndarray]]
    truth: list[list[int]]


def skeletons(source: str) -> list[np.ndarray]:
    """Bodies (T, V, 3) around their own centres, metres: the recorded ones in a folder, or
    synthetic ones."""
    if source:
        files = RecordingFiles()
        found, _ = find_recordings(source, "--source")
        clips = [parse(files.read(item), item.where) for item in found[:100]]
        files.close()
    else:
        numbers = [(1, 1, s, 1, a) for s in SUBJECTS[:4] for a in range(1, len(ACTIONS) + 1)]
        clips = [parse(recording(*n).encode(), str(n)) for n in numbers]
    bodies = [clip.positions[..., m].transpose(1, 2, 0) for clip in clips for m in range(2)]
    present = [body[body.any(axis=(1, 2))] for body in bodies]
    return [body - body.mean(axis=(0, 1)) for body in present if len(body) >= 30]


def make_scene(bodies: Sequence[np.ndarray], num_person: int, rng: np.random.Generator) -> Scene:
    """People who start at one side each, in turn, and walk to the other one."""
    time_axis = np.linspace(-1, 1, NUM_FRAME)
    images, hidden = [], np.zeros((num_person, NUM_FRAME), bool)
    for person in range(num_person):
        body = bodies[int(rng.integers(len(bodies)))]
        forth_and_back = np.concatenate([body, body[::-1]])
        moving = np.resize(forth_and_back, (NUM_FRAME, *body.shape[1:]))
        side = -1 if person % 2 else 1
        path = np.zeros((NUM_FRAME, 1, 3))
        path[:, 0, 0] = side * rng.uniform(0.7, 1.5) * time_axis + rng.uniform(-0.3, 0.3)
        path[:, 0, 2] = rng.uniform(3, 4)
        x, y, z = np.moveaxis(moving + path, 2, 0)
        image = np.stack([WIDTH / 2 + FOCAL * x / z, HEIGHT / 2 - FOCAL * y / z], axis=2)
        images.append(image + rng.normal(scale=NOISE, size=image.shape))
        for _ in range(GAPS):
            start, length = rng.integers(5, NUM_FRAME), rng.integers(3, LONGEST_GAP + 1)
            hidden[person, start : start + length] = True
    truth = [rng.permutation(np.flatnonzero(~hidden[:, t])).tolist() for t in range(NUM_FRAME)]
    frames = [[images[person][t] for person in truth[t]] for t in range(NUM_FRAME)]
    return Scene(frames, truth)


def ours() -> Update:
    return Tracker().update


def norfair() -> Update:
    """Mean distance of the key points, at most 100 pixels, Kalman filter."""
    from norfair import Detection
    from norfair import Tracker as Norfair

    tracker = Norfair("mean_euclidean", 100, hit_counter_max=30, initialization_delay=0)

    def update(people: list[np.ndarray]) -> Sequence[int | None]:
        detections = [Detection(points=person) for person in people]
        found = {id(t.last_detection): t.id for t in tracker.update(detections)}
        return [found.get(id(detection)) for detection in detections]

    return update


def byte_track() -> Update:
    """Overlap of the bounding boxes, Kalman filter."""
    import supervision
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(lost_track_buffer=30, minimum_consecutive_frames=1)

    def update(people: list[np.ndarray]) -> Sequence[int | None]:
        boxes = [np.concatenate([person.min(axis=0), person.max(axis=0)]) for person in people]
        tracked = tracker.update(
            supervision.Detections(
                xyxy=np.reshape(boxes, (-1, 4)),
                confidence=np.ones(len(people)),
                data={"number": np.arange(len(people))},
            )
        )
        numbers = tracked.data.get("number", [])
        found = {int(n): int(i) for n, i in zip(numbers, tracked.tracker_id) if i >= 0}
        return [found.get(n) for n in range(len(people))]

    return update


# Name -> (the packages it needs, a new tracker).
TRACKERS: dict[str, tuple[tuple[str, ...], Callable[[], Update]]] = {
    "ours": ((), ours),
    "norfair": (("norfair",), norfair),
    "ByteTrack": (("trackers", "supervision"), byte_track),
}


def switches(scene: Scene, update: Update) -> tuple[int, int]:
    """(identity switches, unassigned persons) of a scene."""
    last: dict[int, int] = {}
    num_switch = unassigned = 0
    for people, truth in zip(*scene):
        for person, identity in zip(truth, update(people)):
            if identity is None:
                unassigned += 1
            else:
                num_switch += last.setdefault(person, identity) != identity
                last[person] = identity
    return num_switch, unassigned


def rows(scenes: Sequence[Scene]) -> Iterator[str]:
    """A line of the table for each tracker that is installed."""
    total = sum(len(people) for scene in scenes for people in scene.frames)
    num_frame = sum(len(scene.frames) for scene in scenes)
    for name, (packages, new_tracker) in TRACKERS.items():
        if not all(importlib.util.find_spec(package) for package in packages):
            yield f"  {name:12s} not installed"
            continue
        begin = time.perf_counter()
        results = [switches(scene, new_tracker()) for scene in scenes]
        per_frame = (time.perf_counter() - begin) / num_frame * 1e3
        clean = sum(num_switch == 0 for num_switch, _ in results)
        num_switch, unassigned = (sum(values) for values in zip(*results))
        yield (
            f"  {name:12s} {num_switch:8d} {clean:10d}/{len(scenes)} "
            f"{unassigned / total:12.1%} {per_frame:10.2f}"
        )


def main() -> int:
    parser = common.new_parser(__doc__, rounds=0)
    parser.add_argument("--source", default="", help="folder of .skeleton files")
    parser.add_argument("--scenes", type=int, default=30, help="default: 30")
    args = common.parse(parser)
    bodies = skeletons(args.source)
    print(common.machine())
    print(f"{len(bodies)} {'recorded' if args.source else 'synthetic'} skeletons")
    for num_person in (2, 3):
        rng = np.random.default_rng(num_person)
        scenes = [make_scene(bodies, num_person, rng) for _ in range(args.scenes)]
        print(f"{num_person} people: switches, scenes without any, unassigned, ms a frame")
        for row in rows(scenes):
            print(row)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
