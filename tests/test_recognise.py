"""recognise.py: timelines of labels, windows and streams over a recording, its files, bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import paddle
import pytest
from PIL import Image

import configs
import export as export_cli
import recognise
from apps.video.drawing import Painter
from apps.video.frames import open_media
from apps.video.output import shown, write_video
from apps.video.play import Frame, Stopwatch
from apps.video.pose import PoseEstimator
from apps.video.recognition import SCENE, Maps, Steps, Windows
from apps.video.session import Session
from apps.video.timeline import Labels, Smoothing, write
from apps.video.watcher import Watcher
from dataset.features import clip_tensor
from dataset.skeletons import skeleton
from deploy.predictor import Predictor
from deploy.score_maps import ScoreMapPredictor
from deploy.stream_predictor import StreamPredictor
from errors import UserError, run_command
from reader.ntu.reader import parse
from reader.recording import form_of, read_recording
from tests.networks import network_of
from tests.small_models import SMALL, settings, write_weights

NAMES = ["wave", "jump", "sit"]
CAUSAL = {**SMALL, "model_args.att_type": "stja-causal"}


def logits_of(*probability: float) -> np.ndarray:
    return np.log(np.array(probability))


def rows_of(answers: list[np.ndarray], end: float, hold: int = 2) -> list[tuple]:
    labels = Labels(0, Smoothing(0.5, hold))
    for n, logits in enumerate(answers):
        labels.push(10 * n + 5, logits)
    rows = labels.rows(end, lambda c: NAMES[c], 10.0)
    return [(row["start"], row["end"], row["label"], row["confidence"]) for row in rows]


WAVE, JUMP, UNSURE = logits_of(0.8, 0.1, 0.1), logits_of(0.1, 0.7, 0.2), logits_of(0.36, 0.34, 0.3)


def test_a_change_counts_from_the_first_answer_that_made_it() -> None:
    assert rows_of([WAVE, WAVE, JUMP, JUMP], 40) == [
        (0.0, 2.0, "wave", 0.8),
        (2.0, 4.0, "jump", 0.7),
    ]


def test_a_single_different_answer_changes_nothing() -> None:
    assert rows_of([WAVE, JUMP, WAVE], 30) == [(0.0, 3.0, "wave", round((0.8 + 0.1 + 0.8) / 3, 4))]
    assert [row[2] for row in rows_of([WAVE, JUMP, WAVE], 30, hold=1)] == ["wave", "jump", "wave"]


def test_labels_hold_below_the_threshold_until_three_quarters_of_it() -> None:
    nearly = logits_of(0.4, 0.3, 0.3)
    assert [row[2] for row in rows_of([WAVE, nearly, nearly], 30)] == ["wave"]
    found = rows_of([WAVE, UNSURE, UNSURE], 30)
    assert [row[:3] for row in found] == [(0.0, 1.0, "wave"), (1.0, 3.0, "no action")]
    assert found[1][3] == 0.36


def test_files_of_a_timeline(tmp_path: Path) -> None:
    scene = [
        {"start": 0.0, "end": 1.5, "label": "no action", "confidence": 0.2},
        {"start": 1.5, "end": 3661.25, "label": "wave", "confidence": 0.876},
    ]
    tree = {"scene": scene, "persons": [{"person": 4, **scene[1]}]}
    for suffix in ("json", "csv", "srt"):
        write(tmp_path / f"t.{suffix}", tree)
    assert json.loads((tmp_path / "t.json").read_text()) == tree
    with open(tmp_path / "t.csv", newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["scene", "0.0", "1.5", "no action", "0.2"],
            ["scene", "1.5", "3661.25", "wave", "0.876"],
            ["4", "1.5", "3661.25", "wave", "0.876"],
        ]
    expected = "1\n00:00:01,500 --> 01:01:01,250\nwave (88 %)\n\n"
    assert (tmp_path / "t.srt").read_text() == expected


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clips/small.pdmodel` and `step/small.pdmodel` of one causal network of ntu-25."""
    folder = tmp_path_factory.mktemp("recognise")
    write_weights(configs.load("9001", CAUSAL), folder / "small.pdparams")
    argv = ["-c", "9001", "-pp", str(folder / "small.pdparams"), *settings(CAUSAL)]
    assert export_cli.main([*argv, "--save_dir", str(folder / "clips")]) == 0
    stream = ["--contract", "stream", "--save_dir", str(folder / "step")]
    assert export_cli.main([*argv, *stream]) == 0
    return folder


def bodies(length: int, persons: int) -> np.ndarray:
    """(3, T, 25, M) of joints that move at random."""
    rng = np.random.RandomState(0)
    return rng.standard_normal((3, length, 25, persons)).astype(np.float32)


def people_of(positions: np.ndarray) -> list[dict[int, np.ndarray]]:
    there = positions.any(axis=(0, 2))
    return [
        {m: positions[:, t, :, m] for m in range(positions.shape[3]) if there[t, m]}
        for t in range(positions.shape[1])
    ]


def test_windows_give_the_logits_of_their_clips(causal: Path) -> None:
    predictor = Predictor.load(causal / "clips/small.pdmodel", cpu_threads=1)
    positions = bodies(15, 2)
    positions[:, :5, :, 1] = 0
    recogniser = Windows(predictor, size=8, hop=3)
    answers = [
        (t, a) for t, people in enumerate(people_of(positions), 1) for a in recogniser.push(people)
    ]
    answers += [(15, answer) for answer in recogniser.finish()]
    ends = [4, 7, 10, 13, 15]  # half a window, then every hop, and the end
    for end in ends:
        found = {a.who: a for t, a in answers if t == end}
        start = max(end - 8, 0)
        assert found[SCENE].frame == (start + end) / 2
        window = positions[:, start:end]
        if end == 4:
            assert set(found) == {SCENE, 0}
        else:
            own = window[:, max(5 - start, 0) :, :, 1:]
            np.testing.assert_allclose(
                found[1].logits, predictor.run(own[None]).logits[0], atol=1e-5
            )
        np.testing.assert_allclose(
            found[SCENE].logits, predictor.run(window[None]).logits[0], atol=1e-5
        )
    assert sorted({t for t, _ in answers}) == ends
    np.testing.assert_allclose(
        recogniser.whole(), predictor.run(positions[None]).logits[0], atol=1e-5
    )


def test_intensity_is_the_length_of_the_feature(causal: Path, tmp_path: Path) -> None:
    """Of the newest frames that the model has seen, at each joint of each person."""
    weights = causal / "small.pdparams"
    argv = ["-c", "9001", "-pp", str(weights), *settings(CAUSAL), "--with_feature"]
    assert export_cli.main([*argv, "--save_dir", str(tmp_path)]) == 0
    predictor = Predictor.load(tmp_path / "small.pdmodel", cpu_threads=1)
    positions = bodies(10, 2)
    recogniser = Windows(predictor, size=10, hop=10)
    for people in people_of(positions):
        recogniser.push(people)
    recogniser.finish()
    network = network_of(configs.load("9001", {**CAUSAL, "pretrained_path": str(weights)}))
    network.eval()
    clip = np.pad(positions, [(0, 0), (0, 6), (0, 0), (0, 0)])
    with paddle.no_grad():
        tensor = paddle.to_tensor(clip_tensor(clip, skeleton("ntu-25"), "JVB", 16)[None])
        feature = network.with_feature(tensor)[1].numpy()  # (P, C', 8, V)
    expected = np.linalg.norm(feature, axis=1)[:, 4]  # frames 8 and 9 of 16
    assert sorted(recogniser.intensity) == [0, 1]
    for who in (0, 1):
        np.testing.assert_allclose(recogniser.intensity[who], expected[who], rtol=1e-3)


@pytest.fixture(scope="module")
def ailia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ST-GCN of openpose-18 as the public sample has it."""
    folder = tmp_path_factory.mktemp("ailia")
    config = {"model_args.block_args": [[8, 1], [16, 2], [16, 2]]}
    write_weights(configs.load("1005", config), folder / "w.pdparams")
    argv = ["-c", "1005", "-pp", str(folder / "w.pdparams"), *settings(config)]
    assert export_cli.main([*argv, "--contract", "ailia", "--save_dir", str(folder)]) == 0
    return folder / "w.pdmodel"


def test_score_maps_of_the_ailia_contract(ailia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scene is the vote of all joints of all persons; each person has an answer every four
    frames, once; joints have the intensity of the feature."""
    predictor = ScoreMapPredictor.load(ailia, cpu_threads=1)
    positions = bodies(24, 3)[:, :, :18]
    recogniser = Maps(predictor, size=16, hop=4)
    answers = []
    for t, people in enumerate(people_of(positions), 1):
        answers += [(t, answer) for answer in recogniser.push(people)]
    feeds = {"data": positions[None, :, 8:24]}
    scores, feature = predictor.engine.run(feeds)  # (1, 400, 4, 18, 3), (1, 16, 4, 18, 3)
    last = {a.who: a for t, a in answers if t == 24}
    assert set(last) == {SCENE, 0, 1, 2} and last[SCENE].frame == 16
    np.testing.assert_allclose(last[SCENE].logits, scores[0].mean(axis=(1, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(last[2].logits, scores[0, :, 3, :, 2].mean(axis=1), atol=1e-4)
    frames = [answer.frame for _, answer in answers if answer.who == 1]
    assert frames == [2, 6, 10, 14, 18, 22]  # those of 8 frames, then four new ones each time
    norm = np.linalg.norm(feature[0], axis=0)
    np.testing.assert_allclose(recogniser.intensity[1], norm[-1, :, 1], rtol=1e-3)
    whole = predictor.engine.run({"data": positions[None]})[0][0].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(recogniser.whole(), whole, atol=1e-4)
    changed = dataclasses.replace(predictor.input, transform=True)
    monkeypatch.setattr(predictor, "input", changed)
    with pytest.raises(UserError, match="normalised as a whole"):
        Maps(predictor, size=16, hop=4)
    with pytest.raises(UserError, match="not ailia"):
        ScoreMapPredictor(predictor.engine, dataclasses.replace(predictor.meta, contract="clips"))


def test_the_ailia_sample_on_openpose(
    ailia: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images/a.png")
    argv = [str(tmp_path / "images"), "--model_file", str(ailia), "--mirrored", "-np"]
    assert run_command(lambda: recognise.main(argv)) == 2
    assert "--mirrored and --focal are for models in metres" in capsys.readouterr().err
    openpose_folder(tmp_path / "op", 18, 12)
    output, video = tmp_path / "t.json", tmp_path / "t.gif"
    argv = [str(tmp_path / "op"), "--model_file", str(ailia), "--threshold", "0", "-np"]
    argv += ["--unit", "pixel", "--image_size", "640", "480", "--window", "0.4"]
    assert recognise.main([*argv, "--output", str(output), "--video", str(video)]) == 0
    tree = json.loads(output.read_text())
    assert tree["scene"] and tree["persons"] and len(tree["top"]) == 5
    assert Image.open(video).n_frames > 1


class Loud:
    """A recogniser for which the second joint counts most."""

    intensity = {0: np.array([1, 10, 1] + [1] * 22, float)}


def test_joints_that_count_more_are_drawn_larger() -> None:
    layout = skeleton("ntu-25")
    session = Session(Loud(), [], Smoothing(), 30)
    points = np.column_stack([np.full(25, -50.0), np.full(25, -50.0), np.ones(25)])
    points[0, :2], points[1, :2] = (100, 100), (300, 100)

    def dark(x: int) -> int:
        return int((painted[80:120, x - 20 : x + 20] == (17, 24, 39)).all(axis=2).sum())

    painted = np.asarray(Painter(layout, session).frame(None, {0: points}))
    assert dark(300) > 8 * dark(100) > 0
    session.recogniser.intensity = {}
    painted = np.asarray(Painter(layout, session).frame(None, {0: points}))
    assert dark(300) == dark(100) > 0


def test_steps_give_the_logits_of_the_streams(causal: Path) -> None:
    predictor = StreamPredictor.load(causal / "step/small.pdmodel", cpu_threads=1, window=16)
    positions = bodies(21, 2)
    recogniser = Steps(predictor, 16)
    answers = [a for people in people_of(positions) for a in recogniser.push(people)]
    answers += recogniser.finish()
    by_who = {who: [a for a in answers if a.who == who] for who in (SCENE, 0, 1)}
    for who, frames in ((SCENE, positions), (0, positions[..., :1]), (1, positions[..., 1:])):
        expected = [*predictor.push(frames), *predictor.flush()]
        assert len(by_who[who]) == len({a.frame for a in expected}) > 3
        np.testing.assert_allclose(by_who[who][-1].logits, expected[-1].mean, atol=1e-5)
    predictor.push(positions)
    np.testing.assert_allclose(recogniser.whole(), predictor.flush()[-1].clip, atol=1e-5)


def test_a_person_alone_has_the_stream_of_the_scene(causal: Path) -> None:
    recogniser = Steps(StreamPredictor.load(causal / "step/small.pdmodel", cpu_threads=1), 16)
    answers = [a for people in people_of(bodies(17, 1)) for a in recogniser.push(people)]
    answers += recogniser.finish()
    scene, person = ([a.logits.tolist() for a in answers if a.who == who] for who in (SCENE, 0))
    assert scene == person and len(scene) > 3


def test_whole_command_on_a_recording(
    causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    np.save(tmp_path / "two.npy", bodies(40, 2).transpose(3, 1, 2, 0))
    outputs = {name: tmp_path / f"{name}.json" for name in ("clips", "step")}
    for name, output in outputs.items():
        argv = [str(tmp_path / "two.npy"), "--model_file", str(causal / name / "small.pdmodel")]
        argv += ["--window", "0.5", "--threshold", "0", "--output", str(output), "-np"]
        suffix = "gif" if name == "clips" else "mp4"
        assert recognise.main([*argv, "--video", str(tmp_path / f"{name}.{suffix}")]) == 0
        tree = json.loads(output.read_text())
        assert tree["num_frame"] == 40 and tree["frame_rate"] == 30
        assert [row["end"] for row in tree["scene"]][-1] == round(40 / 30, 3)
        assert {row["person"] for row in tree["persons"]} == {0, 1}
        assert len(tree["top"]) == 5
        assert "frames/s: recognition" in capsys.readouterr().out
    with Image.open(tmp_path / "clips.gif") as gif:
        assert gif.n_frames == 14 and gif.info["duration"] == 100
    with av.open(str(tmp_path / "step.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 40
    assert (frames[0] != frames[20]).any()


def openpose_folder(folder: Path, num_joint: int, frames: int) -> np.ndarray:
    """Files of OpenPose with one person; returns (T, V, 3) pixels and scores."""
    folder.mkdir()
    poses = np.random.RandomState(0).uniform(1, 99, (frames, num_joint, 3))
    poses[..., 2] = 0.9
    for t, pose in enumerate(poses):
        person = {"pose_keypoints_2d": pose.ravel().tolist()}
        name = f"clip_{t:012}_keypoints.json"
        (folder / name).write_text(json.dumps({"version": 1.3, "people": [person]}))
    return poses


@pytest.mark.parametrize("num_joint", [18, 25])
def test_openpose_folders_of_both_models_become_openpose_18(tmp_path: Path, num_joint: int) -> None:
    poses = openpose_folder(tmp_path / "op", num_joint, 6)
    form = form_of(skeleton("openpose-18"), 2, is_3d=False, unit="pixel", image_size=(200, 100))
    clip = read_recording(tmp_path / "op", form)
    assert clip.shape == (3, 6, 18, 2) and not clip[..., 1].any()
    stored = skeleton(f"openpose-{num_joint}").joints
    wrist = poses[:, stored.index("left_wrist")]
    joint = clip[:, :, skeleton("openpose-18").joints.index("left_wrist"), 0]
    np.testing.assert_allclose(joint[0], wrist[:, 0] / 200 - 0.5, atol=1e-6)
    np.testing.assert_allclose(joint[1], wrist[:, 1] / 100 - 0.5, atol=1e-6)


BAD_FOLDERS = {
    "no .json files": {"a.txt": ""},
    "no number of a frame": {"pose.json": "{}"},
    "not readable as JSON": {"a_1_keypoints.json": "{"},
    "'people' is not a list": {"a_1_keypoints.json": "{}"},
    "must be 54": {"a_1_keypoints.json": '{"people": [{"pose_keypoints_2d": [1, 2]}]}'},
    "not all are finite numbers": {
        "a_1.json": json.dumps({"people": [{"pose_keypoints_2d": [1] * 53 + [True]}]})
    },
    "is also in": {"a_1.json": '{"people": []}', "b_1.json": '{"people": []}'},
    "at most 100000": {"a_1.json": '{"people": []}', "a_999999999.json": '{"people": []}'},
}


@pytest.mark.parametrize("reason", BAD_FOLDERS)
def test_bad_openpose_folders_are_one_line(tmp_path: Path, reason: str) -> None:
    for name, text in BAD_FOLDERS[reason].items():
        (tmp_path / name).write_text(text)
    form = form_of(skeleton("openpose-18"), 2, is_3d=False)
    with pytest.raises(UserError, match=reason):
        read_recording(tmp_path, form)


BAD_ARGUMENTS = [
    (["missing.skeleton"], "cannot be read"),
    (["missing.mp4"], "no such file; allowed: a video, a folder, a camera's number"),
    (["notes.txt"], "notes.txt: cannot be opened as video"),
    (["notes.txt", "--fps", "25"], "has its own frame rate; leave out --fps"),
    (["images", "--unit", "metre"], "--unit and --image_size are for recordings"),
    (["images", "--pose_model", "notes.txt"], "allowed: a file ending in .onnx"),
    (["images", "--pose_layout", "coco-17"], "--pose_layout needs --pose_model"),
    (["two.npy", "--focal", "0"], "--focal is 0"),
    (["two.npy", "--mirrored"], "--mirrored is for video"),
    (["clips.npy"], "use infer.py --data_file"),
    (["op"], "the model wants ntu-25 in metres"),
    (["two.npy", "--output", "t.xml"], "allowed: a name ending in .json, .csv, .srt"),
    (["two.npy", "--video", "t.avi"], "allowed: a name ending in .gif, .mp4"),
    (["two.npy", "--fps", "0"], "--fps is 0"),
    (["two.npy", "--window", "9"], "the model's clips have 16"),
    (["two.npy", "--threshold", "2"], "--threshold is 2"),
    (["two.npy", "--unit", "pixel"], "allowed for this model: metre, millimetre"),
    (["pipe.npz"], "a pipe or a device"),
]


@pytest.mark.parametrize(("argv", "reason"), BAD_ARGUMENTS)
def test_bad_input_is_one_line(
    causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    argv: list[str], reason: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.save("two.npy", bodies(20, 2).transpose(3, 1, 2, 0))
    os.mkfifo("pipe.npz")
    Path("notes.txt").write_text("no video")
    Path("images").mkdir()
    Image.new("RGB", (64, 48)).save("images/a.png")
    np.save("clips.npy", np.zeros((2, 3, 16, 25, 2), np.float32))
    openpose_folder(tmp_path / "op", 18, 3)
    model = ["--model_file", str(causal / "clips/small.pdmodel"), "--window", "0.5", "-np"]
    assert run_command(lambda: recognise.main([argv[0], *model, *argv[1:]])) == 2
    captured = capsys.readouterr()
    assert reason in captured.err and captured.err.count("\n") == 1
    assert not list(tmp_path.glob("t.*"))


@pytest.fixture(scope="module")
def pose_networks() -> None:
    """Skips what needs the pose networks where they cannot be fetched."""
    from apps.video.weights import pose_weights

    try:
        pose_weights()
    except UserError as error:
        pytest.skip(str(error))


def test_images_without_people(
    pose_networks: None, causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Black ones: an empty timeline, and a video of all of them."""
    (tmp_path / "images").mkdir()
    for n in range(12):
        Image.new("RGB", (320, 240)).save(tmp_path / f"images/{n:03}.png")
    model, output = causal / "clips/small.pdmodel", tmp_path / "t.json"
    argv = [str(tmp_path / "images"), "--model_file", str(model), "--output", str(output)]
    assert recognise.main([*argv, "--video", str(tmp_path / "t.mp4"), "--fps", "10"]) == 0
    tree = json.loads(output.read_text())
    assert tree["frame_rate"] == 10 and tree["num_frame"] == 12
    assert tree["top"] == tree["scene"] == tree["persons"] == []
    with av.open(tmp_path / "t.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 12
    captured = capsys.readouterr()
    assert "nobody is there for long enough" in captured.out and "12/12" in captured.err


@pytest.fixture(scope="module")
def xsub(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released network of ntu-xsub."""
    folder = tmp_path_factory.mktemp("xsub")
    weights = str(samples / "samples/weights/xsub.pdparams")
    assert export_cli.main(["-c", "2001", "-pp", weights, "--save_dir", str(folder)]) == 0
    return folder / "xsub.pdmodel"


def test_real_recordings(samples: Path, xsub: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.json"
    for name, label, persons in (
        ("S001C001P001R001A001", "drink water", 1),
        ("S001C003P008R002A058", "handshaking", 2),
    ):
        source = samples / f"samples/ntu/{name}.skeleton"
        argv = [str(source), "--model_file", str(xsub), "--output", str(output), "-np"]
        assert recognise.main(argv) == 0
        tree = json.loads(output.read_text())
        assert tree["top"][0]["name"] == label and tree["top"][0]["probability"] > 0.99
        assert tree["scene"][-1]["label"] == label
        assert len({row["person"] for row in tree["persons"]}) == persons


@pytest.mark.parametrize(
    ("config", "weights", "kind"),
    [("2001", "xsub", "original"), ("2002", "xview", "transformed")],
)
def test_golden_logits_of_whole_recordings(
    samples: Path, tmp_path: Path, config: str, weights: str, kind: str
) -> None:
    """Also of a network whose clips are normalised as a whole."""
    file = str(samples / f"samples/weights/{weights}.pdparams")
    assert export_cli.main(["-c", config, "-pp", file, "--save_dir", str(tmp_path)]) == 0
    predictor = Predictor.load(tmp_path / f"{weights}.pdmodel")
    names = np.load(samples / "golden/ntu7_generated.npz")["names"]
    golden = np.load(samples / f"golden/ntu7_{weights}_{kind}_logits.npy")
    form = form_of(skeleton("ntu-25"), 2, is_3d=True)
    for name, logits in zip(names, golden):
        (path,) = (samples / "samples/ntu").rglob(str(name))
        recogniser = Windows(predictor, size=90, hop=1000)
        for people in people_of(read_recording(path, form)):
            recogniser.push(people)
        np.testing.assert_allclose(recogniser.whole(), logits, atol=2e-3)


KINECT = ["--mirrored", "--focal", "0.563"]  # its colour camera


@pytest.mark.parametrize(
    ("name", "label", "persons"),
    [
        ("ntu_S001C001P001R001A001_rgb.avi", "drink water", 1),
        ("ntu_hugging_rgb.avi", "hugging other person", 2),
    ],
)
def test_actions_in_real_video(
    pose_networks: None, samples: Path, xsub: Path, tmp_path: Path,
    name: str, label: str, persons: int,
) -> None:  # fmt: skip
    source, output = samples / f"samples/video/{name}", tmp_path / "t.json"
    argv = [str(source), "--model_file", str(xsub), "--output", str(output), *KINECT, "-np"]
    assert recognise.main(argv) == 0
    tree = json.loads(output.read_text())
    assert tree["top"][0]["name"] == label and tree["top"][0]["probability"] > 0.5
    assert tree["scene"][-1]["label"] == label
    assert len({row["person"] for row in tree["persons"]}) == persons


def watch_video(source: Path, layout: str, **how: float) -> list[Frame]:
    media = open_media(str(source), 30)
    pose = PoseEstimator.load(2, 6)
    watcher = Watcher(pose, skeleton(layout), media.frame_rate, **how)
    return list(watcher.frames(media, Stopwatch()))


def test_joints_in_space_are_those_of_the_kinect(pose_networks: None, samples: Path) -> None:
    """Of the same person at the same time, from the middle of the hips."""
    name = "S001C001P001R001A001"
    path = samples / f"samples/video/ntu_{name}_rgb.avi"
    frames = watch_video(path, "ntu-25", is_3d=True, focal=1081 / 1920, mirrored=True)
    joints = np.stack([frame.people[0] for frame in frames], axis=1)
    truth = parse((samples / f"samples/ntu/{name}.skeleton").read_bytes(), name).positions[..., 0]
    assert joints.shape == truth.shape
    base = skeleton("ntu-25").joints.index("spine_base")
    error = (joints - joints[..., [base]]) - (truth - truth[..., [base]])
    assert np.linalg.norm(error, axis=0).mean() < 0.15
    assert np.linalg.norm(joints - truth, axis=0).mean() < 0.5  # how far away is not known well


def test_a_crowd_is_followed(pose_networks: None, samples: Path) -> None:
    path = samples / "samples/video/street_crowd.avi"
    frames = watch_video(path, "coco-17", is_3d=False, focal=0.9, mirrored=False)
    count = Counter(who for frame in frames for who in frame.people)
    assert sum(number >= 10 for number in count.values()) >= 5, count


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_videos_of_one_image_and_of_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    write_video(path, iter([]), 30)
    assert not path.exists()
    write_video(path, iter([Image.new("RGB", (64, 48), (200, 0, 0))]), 30)
    with av.open(str(path)) as video:
        (frame,) = video.decode(video=0)
        assert abs(int(frame.to_ndarray(format="rgb24")[20, 20, 0]) - 200) < 5


def test_no_window_without_a_display(
    causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    np.save(tmp_path / "two.npy", bodies(20, 2).transpose(3, 1, 2, 0))
    argv = [str(tmp_path / "two.npy"), "--model_file", str(causal / "clips/small.pdmodel"), "-np"]
    argv += ["--show", "--video", str(tmp_path / "t.mp4")]
    assert run_command(lambda: recognise.main(argv)) == 2
    captured = capsys.readouterr()
    assert "--show: no window can be opened" in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "t.mp4").exists()


class Window:
    """As much of Tk as a window needs; the user closes it after three images."""

    TclError = RuntimeError

    def __init__(self, *_: object) -> None:
        self.images: list[object] = []

    def Tk(self) -> Window:  # noqa: N802 - the name in tkinter
        return self

    def Label(self, _: object) -> Window:  # noqa: N802
        return self

    def title(self, text: str) -> None:
        self.name = text

    def pack(self) -> None:
        pass

    def protocol(self, _: str, close: Callable[[], None]) -> None:
        self.close = close

    def configure(self, image: object) -> None:
        self.images.append(image)

    def update(self) -> None:
        if len(self.images) == 3:
            self.close()

    def destroy(self) -> None:
        self.name = "gone"


def test_a_window_that_is_closed_ends_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window()
    monkeypatch.setitem(sys.modules, "tkinter", window)
    image_tk = SimpleNamespace(PhotoImage=lambda image, master: image)
    monkeypatch.setitem(sys.modules, "PIL.ImageTk", image_tk)
    monkeypatch.setattr("PIL.ImageTk", image_tk, raising=False)
    images = [Image.new("RGB", (4, 4), (n, n, n)) for n in range(9)]
    assert list(shown(iter(images), "walk")) == images[:3] == window.images
    assert window.name == "gone"


def test_outputs_that_cannot_be_written_are_known_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "t.gif").mkdir()
    for option, name, reason in (
        ("--video", "file/t.mp4", "file is not a folder that can be"),
        ("--output", "file/t.json", "file is not a folder that can be"),
        ("--video", "t.gif", "it is a folder"),
    ):
        argv = ["walk.mp4", "--model_file", "none.pdmodel", option, str(tmp_path / name)]
        assert run_command(lambda argv=argv: recognise.main(argv)) == 2
        error = capsys.readouterr().err
        assert f"{name}: cannot be written" in error and reason in error


def test_a_damaged_image_leaves_no_video(
    pose_networks: None, causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.new("RGB", (64, 48)).save(tmp_path / f"images/{n}.png")
    (tmp_path / "images/3.png").write_bytes(b"damaged")
    argv = [str(tmp_path / "images"), "--model_file", str(causal / "clips/small.pdmodel"), "-np"]
    argv += ["--video", str(tmp_path / "t.mp4"), "--output", str(tmp_path / "t.json")]
    assert run_command(lambda: recognise.main(argv)) == 2
    assert "3.png: cannot be read as an image" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
