"""The synthetic recordings: format, determinism, plausible motion, learnable classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dataset.protocols import protocol
from dataset.synthetic.actions import ACTION_TABLE
from dataset.synthetic.body import PARENTS, joint_rotations, make_subject
from dataset.synthetic.motion import perform
from dataset.synthetic.recordings import (
    ACTIONS,
    EVAL_SUBJECTS,
    SUBJECTS,
    TRAIN_SUBJECTS,
    main,
    recording,
    write_recordings,
)
from errors import UserError, run_command
from tests.processes import ROOT, run_python

NUM_JOINT = 25
TWO_PERSONS = tuple(k for k, a in enumerate(ACTION_TABLE, start=1) if a.partner is not None)
Bodies = dict[str, np.ndarray]  # body ID -> (frames seen, V, 12)


def parse(text: str) -> tuple[list[int], Bodies]:
    """Read a recording by the letter of the format: bodies in each frame, and the bodies."""
    lines = iter(text.splitlines())
    counts, bodies = [], {}
    for _ in range(int(next(lines))):
        counts.append(int(next(lines)))
        for _ in range(counts[-1]):
            info = next(lines).split(" ")
            assert len(info) == 10
            assert next(lines) == str(NUM_JOINT)
            joints = [next(lines).split(" ") for _ in range(NUM_JOINT)]
            assert {len(fields) for fields in joints} == {12}
            bodies.setdefault(info[0], []).append(np.array(joints, dtype=float))
    assert list(lines) == []
    return counts, {name: np.stack(frames) for name, frames in bodies.items()}


def energy(joints: np.ndarray) -> float:
    """What the NTU reader ranks bodies by: spread of x, y and z over frames and joints."""
    return sum(joints[..., axis].std() for axis in range(3))


def performers(bodies: Bodies) -> list[np.ndarray]:
    """At most two bodies (T, V, 3), most motion energy first."""
    joints = [body[..., :3] for body in bodies.values()]
    return sorted(joints, key=energy, reverse=True)[:2]


@pytest.fixture(scope="module")
def clips() -> list[tuple[int, int, list[int], Bodies]]:
    """(subject, label, bodies in each frame, bodies): 10 subjects, 12 actions, 2 of the cameras."""
    return [
        (subject, label, *parse(recording(1, camera, subject, 1, label + 1)))
        for subject in SUBJECTS[:10]
        for camera in (1, 3)
        for label in range(len(ACTIONS))
    ]


# The files


def test_same_seed_gives_same_bytes_whatever_else_is_written(tmp_path):
    many = write_recordings(tmp_path / "many", subjects=(3, 1, 2), cameras=(2, 1), actions=(12, 1))
    one = write_recordings(tmp_path / "one", subjects=(2,), cameras=(2,), actions=(12,))
    assert len(many) == 12 and many == sorted(many)
    twin = tmp_path / "many" / one[0].name
    assert twin.read_bytes() == one[0].read_bytes()
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [p.name for p in many]


def test_files_are_named_as_in_ntu_and_end_in_a_line_feed(tmp_path):
    (path,) = write_recordings(tmp_path, subjects=(3,), cameras=(2,), actions=(7,))
    assert path.name == "S002C002P003R001A007.skeleton"
    assert path.read_bytes().endswith(b"\n") and b"\r" not in path.read_bytes()


def test_seed_camera_repeat_and_subject_each_make_another_recording():
    first = recording(1, 1, 1, 1, 1, seed=0)
    others = {
        recording(1, 1, 1, 1, 1, seed=1),
        recording(1, 2, 1, 1, 1),
        recording(1, 1, 1, 2, 1),
        recording(1, 1, 2, 1, 1),
        recording(2, 1, 1, 1, 1),
    }
    assert len(others) == 5 and first not in others
    assert first == recording(1, 1, 1, 1, 1, seed=0)


def test_numbers_are_written_as_kinect_writes_them(clips):
    text = recording(1, 1, 1, 1, 1)
    fields = [field for line in text.splitlines() for field in line.split(" ")]
    mantissas = [field.partition("E")[0].lstrip("-") for field in fields if "." in field]
    assert max(len(m.replace(".", "").lstrip("0")) for m in mantissas) == 7
    assert not any(field in ("-0", "nan", "inf") for field in fields)
    for _, _, _, bodies in clips[:24]:
        for body in bodies.values():
            assert set(np.unique(body[..., 11])) <= {0.0, 1.0, 2.0}
            norms = np.linalg.norm(body[..., 7:11], axis=-1)
            assert np.all((np.abs(norms - 1) < 1e-5) | (norms == 0))


def test_pixels_are_where_kinect_sees_the_point():
    """The depth camera's focal length (366 pixels) and centre, measured on real recordings."""
    seen = np.concatenate(list(parse(recording(1, 1, 1, 1, 1))[1].values()))
    seen = seen[seen[..., 11] > 0]
    pixels = np.stack([seen[:, 3] - 256, -seen[:, 4] + 208], axis=-1) * seen[:, 2:3] / 366.5
    assert np.abs(pixels - seen[:, :2]).max() < 0.01
    assert 2 < np.median(seen[:, 2]) < 4.5


def test_what_real_recordings_suffer_from_occurs(clips):
    lengths = {len(counts) for _, _, counts, _ in clips}
    assert min(lengths) >= 40 and max(lengths) <= 75 and len(lengths) > 15
    empty = sum(0 in counts for _, _, counts, _ in clips)
    extra = sum(len(b) > 1 + (label + 1 in TWO_PERSONS) for _, label, _, b in clips)
    lost = sum(any((x[..., 11] == 0).any() for x in b.values()) for _, _, _, b in clips)
    late = sum(len({len(x) for x in b.values()}) > 1 for _, _, _, b in clips)
    for count, share in ((empty, 0.2), (extra, 0.3), (lost, 0.4), (late, 0.3)):
        assert 0 < count < share * len(clips)
    for _, _, counts, bodies in clips:
        assert max(counts) == len(bodies) <= 3 and sum(counts) == sum(map(len, bodies.values()))


def test_lost_joints_are_all_zero_and_others_are_not(clips):
    for _, _, _, bodies in clips:
        for body in bodies.values():
            lost = body[..., 11] == 0
            assert not body[lost].any() and body[~lost][:, :3].any(axis=-1).all()


# The bodies


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    """(T, V, 3) -> (T, V - 1)"""
    return np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1)


@pytest.mark.parametrize("label", range(len(ACTIONS)), ids=ACTIONS)
def test_bones_keep_their_length_and_feet_their_floor(label):
    action = ACTION_TABLE[label]
    cast = [make_subject(1, 0), make_subject(3, 0)][: 1 + (action.partner is not None)]
    bodies = perform(action, cast, 60, np.random.default_rng(label))
    assert len(bodies) == len(cast)
    for body, subject in zip(bodies, cast):
        length = np.linalg.norm(subject.offsets[1:], axis=-1)
        np.testing.assert_allclose(bone_lengths(body.positions), np.tile(length, (60, 1)))
        assert -0.12 < body.positions[..., 1].min() < 0.08  # metres above the floor
        assert np.all(body.positions[:, 3, 1] > body.positions[:, 14, 1])  # head over ankle
        speed = np.linalg.norm(np.diff(body.positions, axis=0), axis=-1) * 30
        assert 0.4 < speed.max() < 13  # m/s: moves, and no faster than people can


def test_bones_keep_their_length_in_the_files_up_to_the_noise(clips):
    for _, _, _, bodies in clips:
        for body in bodies.values():
            tracked = (body[..., 11] == 2)[:, 1:] & (body[..., 11] == 2)[:, list(PARENTS[1:])]
            lengths = np.ma.array(bone_lengths(body[..., :3]), mask=~tracked).std(axis=0)
            assert lengths[:20].max() < 0.03  # metres; the fingers are noisier, as Kinect's are
            assert lengths[20:].max() < 0.06


def test_rotations_are_rotations():
    angles = np.random.default_rng(0).uniform(-3, 3, (50, 3))
    rotations = joint_rotations(angles)
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)


def test_orientations_point_along_the_bones():
    """The y axis of a Kinect orientation runs along the bone that ends in the joint."""
    body = next(iter(parse(recording(1, 2, 1, 1, 3))[1].values()))
    joints = [1, 2, 5, 6, 9, 10, 13, 14, 17, 18]
    body = body[(body[..., 11] == 2).all(axis=1)]
    w, x, y, z = np.moveaxis(body[:, joints, 7:11], -1, 0)
    axis = np.stack((2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)), axis=-1)
    bones = body[:, joints, :3] - body[:, [PARENTS[v] for v in joints], :3]
    cosine = (axis * bones).sum(-1) / np.linalg.norm(bones, axis=-1)
    assert len(body) and np.median(cosine) > 0.99


def test_two_persons_move_and_meet(clips):
    for bodies in (b for _, label, _, b in clips if label + 1 in TWO_PERSONS):
        pair = performers(bodies)
        assert len(pair) == 2
        for body in pair:
            assert np.ptp(body[:, [3, 7, 11]], axis=0).max() > 0.15  # metres, head and hands
        distance = np.linalg.norm(pair[0][:, 0].mean(axis=0) - pair[1][:, 0].mean(axis=0))
        assert 0.5 < distance < 1.8


def test_furniture_keeps_still_and_has_the_least_energy(clips):
    found = 0
    for _, label, _, bodies in clips:
        people = 1 + (label + 1 in TWO_PERSONS)
        ranked = sorted((body[..., :3] for body in bodies.values()), key=energy, reverse=True)
        for furniture in ranked[people:]:
            found += 1
            assert energy(furniture) < 0.75 * energy(ranked[people - 1])
            assert furniture[:, :2].std(axis=0).max() < 0.02 < ranked[0].std(axis=0).max()
    assert found > 10


# The split, and whether it can be learnt


def test_subjects_of_training_and_evaluation_are_disjoint():
    assert not set(TRAIN_SUBJECTS) & set(EVAL_SUBJECTS)
    assert set(TRAIN_SUBJECTS) | set(EVAL_SUBJECTS) == set(SUBJECTS)
    assert len(SUBJECTS) >= 10 and len(ACTIONS) == len(set(ACTIONS)) >= 12 and len(TWO_PERSONS) == 2
    sizes = {round(float(make_subject(s, 0).offsets[1, 1]), 4) for s in SUBJECTS}
    assert len(sizes) == len(SUBJECTS)


def filled(joints: np.ndarray) -> np.ndarray:
    """(T, V, 3) with joints that were lost put back by interpolation."""
    joints = joints.copy()
    time = np.arange(len(joints))
    for v in range(NUM_JOINT):
        lost = ~joints[:, v].any(axis=-1)
        for axis in range(3) if 0 < lost.sum() < len(time) else ():
            joints[lost, v, axis] = np.interp(time[lost], time[~lost], joints[~lost, v, axis])
    return joints


def motion_features(bodies: Bodies) -> np.ndarray:
    """How fast and how far joints go, whatever the view; how far the shoulders turn; whether
    somebody else is there."""
    found = performers(bodies)
    joints = filled(found[0])
    limbs = [0, 3, 5, 6, 9, 10, 13, 14, 17, 18]
    speed = np.percentile(np.linalg.norm(np.diff(joints, axis=0), axis=-1), 80, axis=0)[limbs]
    height = joints[:, limbs, 1] - joints[:1, :1, 1]
    gaps = np.linalg.norm(joints[:, [7, 6, 10, 14]] - joints[:, [11, 0, 0, 18]], axis=-1)
    across = joints[:, 8] - joints[:, 4]
    turn = np.unwrap(np.arctan2(across[:, 2], across[:, 0]))
    return np.concatenate(
        [speed * 5, *np.percentile(height, (5, 95), axis=0), height.std(axis=0)]
        + [*np.percentile(gaps, (5, 95), axis=0), [abs(turn[-5:].mean() - turn[:5].mean())]]
        + [[energy(found[1]) if len(found) > 1 else 0.0]]
    )


def posture_features(bodies: Bodies) -> np.ndarray:
    """The distances between all joints in the middle frame, and whether somebody else is there."""
    found = performers(bodies)
    joints = filled(found[0])[len(found[0]) // 2]
    distances = np.linalg.norm(joints[:, None] - joints[None], axis=-1)
    return np.concatenate((distances[np.triu_indices(NUM_JOINT, 1)][::2], [len(found)]))


def held_out_accuracy(features: np.ndarray, labels: np.ndarray, train: np.ndarray) -> float:
    """Ridge regression to one-hot labels on some clips, accuracy on the others."""
    features = (features - features[train].mean(axis=0)) / (features[train].std(axis=0) + 1e-6)
    features = np.concatenate((features, np.ones((len(features), 1))), axis=1)
    x, y = features[train], np.eye(len(ACTIONS))[labels[train]]
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    guesses = (features[~train] @ weights).argmax(axis=1)
    return float((guesses == labels[~train]).mean())


def test_actions_can_be_told_apart_by_motion_but_not_by_one_posture(clips):
    labels = np.array([label for _, label, _, _ in clips])
    train = np.array([subject in TRAIN_SUBJECTS for subject, _, _, _ in clips])
    motion = np.stack([motion_features(bodies) for *_, bodies in clips])
    posture = np.stack([posture_features(bodies) for *_, bodies in clips])
    by_motion = held_out_accuracy(motion, labels, train)
    by_posture = held_out_accuracy(posture, labels, train)
    print(f"held-out accuracy: motion {by_motion:.3f}, posture {by_posture:.3f}")
    assert by_motion > 0.85
    assert by_posture < 0.9 and by_posture < by_motion - 0.05


# The command line


def run(arguments: Sequence[str], capsys) -> tuple[int, str, str]:
    code = run_command(lambda: main(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_script_runs_from_the_root_and_says_what_is_next(tmp_path):
    argv = ["--save_dir", tmp_path / "a", "-np", "--subjects", "2"]
    done = run_python("dataset/synthetic.py", *argv)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"{2 * 3 * len(ACTIONS)} recordings")
    assert f"python main.py -c 9001 -gd --set dataset_args.ntu.synthetic_path={tmp_path}" in (
        done.stdout
    )
    assert len(list((tmp_path / "a").glob("S*C*P*R*A*.skeleton"))) == 2 * 3 * len(ACTIONS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--subjects", "0"], "--subjects is 0; allowed: 2 to 14"),
        (["--subjects", "15"], "--subjects is 15"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_numbers_out_of_range_are_one_line_and_exit_2(arguments, named, tmp_path, capsys):
    code, out, err = run(["--save_dir", str(tmp_path / "new"), *arguments], capsys)
    assert code == 2 and out == "" and err.count("\n") == 1 and named in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("below", ["", "inside"])
def test_a_folder_that_is_a_file_is_one_line_and_exit_2(below, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    code, out, err = run(["--save_dir", str(tmp_path / "taken" / below), "-np"], capsys)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert str(tmp_path / "taken") in err and "Traceback" not in err


@pytest.mark.parametrize(
    "clip", [(0, 1, 1, 1, 1), (1, 4, 1, 1, 1), (1, 1, 15, 1, 1), (1, 1, 1, 0, 1), (1, 1, 1, 1, 13)]
)
def test_recordings_that_do_not_exist_are_refused(clip):
    with pytest.raises(UserError, match="allowed: 1 to"):
        recording(*clip)


def test_class_names_and_protocol_match_the_actions() -> None:
    names = [action.name for action in ACTION_TABLE]
    file = ROOT / "dataset" / "class_names" / "synthetic.txt"
    assert file.read_text(encoding="utf-8").splitlines() == names
    assert protocol("synthetic-xsub").num_class == len(names)
