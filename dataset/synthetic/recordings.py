"""Synthetic recordings in the text format and naming of NTU RGB+D, for demos and tests.

A kinematic body of 25 joints performs twelve actions, two of them with a partner, in front of three
cameras. The files also contain: persons of different size, tempo and style, sensor noise, joints
that are inferred or lost, frames without persons, a second person who appears late, furniture that
is detected as a person, and clips of different length. Each file depends only on the seed and on
the numbers in its name.

    python dataset/synthetic.py --save_dir DIR [--seed 0] [--subjects N] [--repeats N] [-np]
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.synthetic.actions import ACTION_TABLE
from dataset.synthetic.body import Subject, make_subject
from dataset.synthetic.motion import perform, stand_still
from dataset.synthetic.sensor import CAMERAS, SETUPS, body_text, file_text, sense, view
from errors import UserError
from safe_io import whole_file

# Class names in label order; the action number in a file's name is label + 1.
ACTIONS: tuple[str, ...] = tuple(action.name for action in ACTION_TABLE)
MAX_SUBJECT = 14
TRAIN_SUBJECTS: tuple[int, ...] = tuple(range(1, MAX_SUBJECT + 1, 2))
EVAL_SUBJECTS: tuple[int, ...] = tuple(range(2, MAX_SUBJECT + 1, 2))  # held out
SUBJECTS: tuple[int, ...] = tuple(range(1, MAX_SUBJECT + 1))
MAX_REPEAT = 999  # what three digits hold
_CURLED = {"lean": 30, "bend": 30}
_CROUCHED = {"both_hip": 90, "both_knee": 100, "both_flex": 30, "both_elbow": 60, **_CURLED}


def clip_name(setup: int, camera: int, subject: int, repeat: int, action: int) -> str:
    """'SsssCcccPpppRrrrAaaa', all counted from 1."""
    return f"S{setup:03d}C{camera:03d}P{subject:03d}R{repeat:03d}A{action:03d}"


def recording(
    setup: int, camera: int, subject: int, repeat: int, action: int, seed: int = 0
) -> str:
    """The text of one `.skeleton` file; it depends only on these numbers.

    setup 1 to 3 (height and distance of the cameras), camera 1 to 3 (at 0, -45, +45 degrees),
    subject and action as in SUBJECTS and ACTIONS (label + 1), repeat 1 to 999, seed 0 or more. 42
    to 72 frames. Raises UserError for a number out of range.
    """
    _check("setup", 1, len(SETUPS), setup)
    _check("repeat", 1, MAX_REPEAT, repeat)
    _check_choices(seed, (subject,), (camera,), (action,))
    rng = np.random.default_rng([seed, 2, setup, camera, subject, repeat, action])
    num_frame = int(rng.integers(42, 73))
    cast = _cast(subject, action, seed, rng)
    bodies = perform(ACTION_TABLE[action - 1], cast, num_frame, rng)
    tracks = []
    for body in bodies:
        fields = sense(view(body, setup, camera), rng)
        tracks.append(body_text(fields, _body_id(rng), rng))
    _perturb(tracks, rng)
    if rng.random() < 0.15:
        _add_furniture(tracks, setup, camera, cast[0], rng)
    if rng.random() < 0.08:
        first, length = int(rng.integers(num_frame)), int(rng.integers(1, 4))
        for track in tracks:
            _hide(track, first, first + length)
    return file_text(tracks)


def _cast(subject: int, action: int, seed: int, rng: np.random.Generator) -> list[Subject]:
    """The performers: the subject, and a partner from the same split, so that held-out persons
    never occur in training."""
    cast = [make_subject(subject, seed)]
    if ACTION_TABLE[action - 1].partner is not None:
        side = TRAIN_SUBJECTS if subject in TRAIN_SUBJECTS else EVAL_SUBJECTS
        others = [number for number in side if number != subject]
        cast.append(make_subject(others[rng.integers(len(others))], seed))
    return cast


def _body_id(rng: np.random.Generator) -> int:
    return 2**56 + int(rng.integers(1000, 20000))  # as Kinect numbers them


def _hide(track: list[str], first: int, stop: int) -> None:
    track[first:stop] = [""] * len(track[first:stop])


def _perturb(tracks: list[list[str]], rng: np.random.Generator) -> None:
    """Bodies are in random order; the last one may be detected some frames late. (If the first one
    were, the positions of the others in the file would change.)"""
    if rng.random() < 0.5:
        tracks.reverse()
    if len(tracks) > 1 and rng.random() < 0.2:
        _hide(tracks[-1], 0, int(rng.integers(1, 9)))


def _add_furniture(
    tracks: list[list[str]], setup: int, camera: int, model: Subject, rng: np.random.Generator
) -> None:
    """An object that the sensor detects as a person: small, crouched and still."""
    num_frame = len(tracks[0])
    size = rng.uniform(0.4, 0.55)
    body = stand_still(_CROUCHED, model.offsets * size, num_frame)
    offset = np.array([rng.choice((-1, 1)) * rng.uniform(0.8, 1.2), 0.0, rng.uniform(0.2, 0.7)])
    seen = view(body.rotated(rng.uniform(-2, 2)).moved(offset), setup, camera)
    # A lost joint jumps to the origin, which would give the furniture a high motion energy.
    fields = sense(seen, rng, loses_joints=False)
    track = body_text(fields, _body_id(rng), rng)
    if rng.random() < 0.5:
        tracks.insert(0, track)
    else:
        _hide(track, 0, int(rng.integers(0, num_frame // 2)))
        tracks.append(track)


def write_recordings(
    folder: Path | str,
    *,
    seed: int = 0,
    subjects: Sequence[int] = SUBJECTS,
    cameras: Sequence[int] = CAMERAS,
    repeats: int = 1,
    actions: Sequence[int] = tuple(range(1, len(ACTIONS) + 1)),
    progress: bool = False,
) -> list[Path]:
    """Write a recording of every combination as `folder/SsssCcccPpppRrrrAaaa.skeleton`.

    Numbers count from 1, as in the names; the setup follows from the subject. Each file is written
    atomically. Returns the paths, sorted. Raises UserError for a number out of range and for a
    folder that cannot be created or written.
    """
    _check("repeats", 1, MAX_REPEAT, repeats)
    _check_choices(seed, subjects, cameras, actions)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"folder cannot be created ({error.strerror}); choose another"
        raise UserError(f"{folder}: {reason}") from error
    chosen = product(set(subjects), set(cameras), range(1, repeats + 1), set(actions))
    clips = sorted((1 + (s - 1) // 2 % len(SETUPS), c, s, r, a) for s, c, r, a in chosen)
    paths = []
    for clip in tqdm(clips, desc="recordings", unit="file", disable=not progress):
        path = folder / f"{clip_name(*clip)}.skeleton"
        with whole_file(path, mode="wb") as file:
            file.write(recording(*clip, seed=seed).encode("ascii"))
        paths.append(path)
    return paths


def _check(what: str, low: int, high: int, *values: int) -> None:
    for value in values:
        if not low <= value <= high:
            raise UserError(f"{what} is {value}; allowed: {low} to {high}")


def _check_choices(
    seed: int, subjects: Sequence[int], cameras: Sequence[int], actions: Sequence[int]
) -> None:
    _check("seed", 0, 2**63 - 1, seed)
    _check("subject", 1, MAX_SUBJECT, *subjects)
    _check("camera", 1, len(CAMERAS), *cameras)
    _check("action", 1, len(ACTIONS), *actions)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code; raises UserError for a user error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save_dir", required=True, type=Path, help="folder to write to")
    parser.add_argument("--seed", default=0, type=int, help="same seed, same bytes")
    split = f"subjects 1 to N (2 to {MAX_SUBJECT}); odd ones train, even ones evaluate"
    parser.add_argument("--subjects", default=MAX_SUBJECT, type=int, metavar="N", help=split)
    parser.add_argument("--repeats", default=1, type=int, metavar="N", help="of each action")
    parser.add_argument("-np", "--no_progress_bar", action="store_true")
    args = parser.parse_args(arguments)
    _check("--subjects", 2, MAX_SUBJECT, args.subjects)
    _check("--repeats", 1, MAX_REPEAT, args.repeats)
    _check("--seed", 0, 2**63 - 1, args.seed)
    paths = write_recordings(
        args.save_dir,
        seed=args.seed,
        subjects=range(1, args.subjects + 1),
        repeats=args.repeats,
        progress=not args.no_progress_bar,
    )
    print(f"{len(paths)} recordings of {len(ACTIONS)} actions in {args.save_dir}")
    setting = shlex.quote(f"dataset_args.ntu.synthetic_path={args.save_dir}")
    print(f"next: python main.py -c 9001 -gd --set {setting}")
    return 0
