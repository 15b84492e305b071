"""A folder of OpenPose's files, one JSON file per frame -> the persons of one recording.

A file: {people: [{pose_keypoints_2d: [x0, y0, score0, x1, ...]}]}, 18 joints (COCO model) or 25
(BODY_25), called <name>_<number>_keypoints.json (OpenPose documentation, output format).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from dataset.skeletons import Skeleton, skeleton
from reader.clip import BadRecording
from reader.shared import read_file

LAYOUTS = {18: skeleton("openpose-18"), 25: skeleton("openpose-25")}
MAX_PERSONS = 32  # of a frame
MAX_FRAMES = 100_000
MAX_BYTES = 2**20  # of one file
_NAME = re.compile(r"(?:.*_)?([0-9]{1,12})(?:_keypoints)?\.json")


def read_folder(folder: Path, layout: Skeleton) -> np.ndarray:
    """(M, T, V, 3) float64 of the joints of `layout`, openpose-18 or openpose-25: x and y as
    stored, and score; zeros where nobody is. Persons are in stored order. Frames without a file
    are empty. Raises BadRecording for other files, joints and values, and for no files."""
    numbered = _numbered(folder)
    first = min(numbered)
    length = max(numbered) - first + 1
    if length > MAX_FRAMES:
        raise BadRecording(str(folder), f"frames {first} to {max(numbered)}; at most {MAX_FRAMES}")
    frames = {n - first: _people(file, layout) for n, file in numbered.items()}
    most = max(len(people) for people in frames.values())
    found = np.zeros((max(most, 1), length, layout.num_joint, 3))
    for frame, people in frames.items():
        found[: len(people), frame] = people
    return found


def _numbered(folder: Path) -> dict[int, str]:
    """Number of the frame -> its file."""
    found: dict[int, str] = {}
    try:
        files = sorted(str(path) for path in folder.iterdir() if path.suffix == ".json")
    except OSError as error:
        raise BadRecording(str(folder), f"cannot be read: {error.strerror or error}") from error
    for file in files:
        match = _NAME.fullmatch(Path(file).name)
        if not match:
            raise BadRecording(file, "its name has no number of a frame: <name>_<number>.json")
        number = int(match.group(1))
        if number in found:
            raise BadRecording(file, f"frame {number} is also in {Path(found[number]).name}")
        found[number] = file
    if not found:
        raise BadRecording(str(folder), "contains no .json files of OpenPose, one per frame")
    return found


def _people(file: str, layout: Skeleton) -> np.ndarray:
    """(P, V, 3) of one frame."""
    try:
        content = json.loads(read_file(file, MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise BadRecording(file, f"not readable as JSON: {error}") from error
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or len(people) > MAX_PERSONS:
        raise BadRecording(file, f"'people' is not a list of at most {MAX_PERSONS} persons")
    poses = [_pose(file, m, person, layout) for m, person in enumerate(people)]
    return np.stack(poses) if poses else np.zeros((0, layout.num_joint, 3))


def _pose(file: str, index: int, person: Any, layout: Skeleton) -> np.ndarray:
    """(V, 3), zeros for joints with score 0."""
    values = person.get("pose_keypoints_2d") if isinstance(person, dict) else None
    where = f"people[{index}].pose_keypoints_2d"
    if not isinstance(values, list) or len(values) not in (3 * count for count in LAYOUTS):
        count = len(values) if isinstance(values, list) else "no list of"
        raise BadRecording(file, f"{where}: {count} numbers; must be 54 (18 joints) or 75 (25)")
    if not all(type(value) in (int, float) and abs(value) < 1e6 for value in values):
        raise BadRecording(file, f"{where}: not all are finite numbers below 1,000,000")
    pose = np.array(values, np.float64).reshape(-1, 3)
    stored = LAYOUTS[len(pose)].joints
    missing = set(layout.joints) - set(stored)
    if missing:
        raise BadRecording(
            file, f"{where}: {len(pose)} joints, without {min(missing)} of {layout.name}"
        )
    chosen = pose[[stored.index(name) for name in layout.joints]]
    chosen[chosen[:, 2] <= 0] = 0
    return chosen
