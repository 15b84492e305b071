"""Accuracy of the first part of a clip: every column by value, its files, and user errors."""

from __future__ import annotations

import csv
import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from networks import network_of, score_map_of

import configs
import export as export_cli
from dataset.features import clip_tensor
from dataset.skeletons import skeleton
from dataset.storage import open_clips
from dataset.synthetic.clips import make_clips
from deploy.meta import StaticMeta, meta_path
from deploy.predictor import Predictor
from deploy.stream_predictor import StreamPredictor
from errors import UserError, run_command
from tests.small_models import SMALL, write_weights
from tools import early_recognition as tool

NUM_FRAME = 24
# The first two fill the network's clips: no padding. The last two are too short for a velocity.
LENGTHS = (24, 24, 19, 13, 7, 1, 0)
KEYS = {
    **SMALL,
    "dataset_args.ntu.num_frame": NUM_FRAME,
    "dataset_args.ntu.inputs": "V",  # which looks ahead
    "model_args.att_type": "stja-causal",
    "model_args.layer_type": "Basic",
}
ENGINE = "openvino"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small.pdparams; its models stream/small.pdmodel and clips/small.pdmodel; x.npy, x.pkl."""
    path = tmp_path_factory.mktemp("early")
    write_weights(configs.load("9001", KEYS), path / "small.pdparams")
    flags = ["-c", "9001", "-pp", str(path / "small.pdparams"), "--set"]
    flags += [f"{key}={json.dumps(value)}" for key, value in KEYS.items()]
    for contract in ("stream", "clips"):
        argv = [*flags, "--contract", contract, "--save_dir", str(path / contract)]
        assert export_cli.main(argv) == 0
    clips = make_clips((len(LENGTHS), NUM_FRAME, 25, 2), frames=NUM_FRAME, persons=1)
    clips[1, ..., 1] = clips[2, ..., 0]  # a second person
    for clip, length in zip(clips, LENGTHS):
        clip[:, length:] = 0
    np.save(path / "x.npy", clips)
    return path


@pytest.fixture(scope="module")
def stream(folder: Path) -> StreamPredictor:
    return StreamPredictor.load(folder / "stream/small.pdmodel", engine=ENGINE)


@pytest.fixture(scope="module")
def clip_model(folder: Path) -> Predictor:
    return Predictor.load(folder / "clips/small.pdmodel", engine=ENGINE)


@pytest.fixture(scope="module")
def network(folder: Path) -> paddle.nn.Layer:
    keys = {**KEYS, "pretrained_path": str(folder / "small.pdparams")}
    network = network_of(configs.load("9001", keys))
    network.eval()
    return network


@pytest.fixture(scope="module")
def answers(folder: Path, stream: StreamPredictor, clip_model: Predictor) -> tool.Answers:
    clips = open_clips(folder / "x.npy", written_labels(folder, [0] * len(LENGTHS)))
    return tool.all_answers(stream, clip_model, clips, progress=False)


def written_labels(folder: Path, labels: list[int] | None) -> Path:
    path = folder / "labels.pkl"
    path.write_bytes(pickle.dumps(([f"c{n}" for n in range(len(LENGTHS))], labels)))
    return path


def features(clip: np.ndarray) -> np.ndarray:
    return clip_tensor(clip, skeleton("ntu-25"), "V")[None]


def logits_of(network: paddle.nn.Layer, clip: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return network(paddle.to_tensor(features(clip))).numpy()[0]


def close(got: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max())


def test_frames_seen_are_rounded_up() -> None:
    assert tool.frames_seen(24) == [3, 5, 8, 10, 12, 15, 17, 20, 22, 24]
    assert tool.frames_seen(1) == [1] * 10


def test_flushed_is_the_network_on_these_frames_alone(folder, network, answers) -> None:
    compared = 0
    for n, clip in enumerate(np.load(folder / "x.npy")):
        for s, end in enumerate(answers.frames[n]):
            if end >= 3:  # as the network's features need
                assert close(answers.flushed[n, s], logits_of(network, clip[:, :end])), (n, s)
                compared += 1
    assert compared == 10 + 10 + 9 + 9 + 8


def test_clip_is_the_predictor_on_padded_frames(folder, network, clip_model, answers) -> None:
    for n, clip in enumerate(np.load(folder / "x.npy")):
        for s, end in enumerate(answers.frames[n]):
            padded = np.zeros_like(clip)
            padded[:, :end] = clip[:, :end]
            assert close(answers.clip[n, s], logits_of(network, padded)), (n, s)
            if s in (0, 9):
                logits = clip_model.run(clip[None, :, : max(end, 1)]).logits[0]
                assert close(answers.clip[n, s], logits), (n, s)


def test_flushed_equals_clip_where_nothing_is_padded(answers) -> None:
    """And there alone: the network also takes its mean over the padding."""
    full = np.array(LENGTHS) == NUM_FRAME
    assert close(answers.flushed[full, -1], answers.clip[full, -1])
    assert not close(answers.flushed[2:4, -1], answers.clip[2:4, -1])
    assert not close(answers.flushed[full, 4], answers.clip[full, 4])


def test_stream_is_the_mean_of_the_positions_so_far(folder, network, stream, answers) -> None:
    plan, look_ahead = stream.plan, stream.input.pipeline.look_ahead
    assert plan.chunk == plan.output.spacing == 2 and look_ahead == 2 and plan.delay > 0
    for n, clip in enumerate(np.load(folder / "x.npy")[:5]):
        tensor = features(clip[:, : LENGTHS[n]])
        scores = score_map_of(network, tensor).mean(axis=(0, 3)).T  # T', num_class
        for s, end in enumerate(answers.frames[n]):
            count = (end - look_ahead) // plan.chunk - plan.output.lag
            if count > 0:
                assert close(answers.stream[n, s], scores[:count].mean(axis=0)), (n, s)
            else:
                assert np.isnan(answers.stream[n, s]).all(), (n, s)


def test_clips_are_answered_after_the_delay(stream, answers) -> None:
    plan = stream.plan
    first = (plan.output.lag + 1) * plan.chunk + 2  # of velocities
    assert tool.first_answer(stream) == first > plan.delay
    assert answers.answered().tolist() == (answers.frames >= first).sum(axis=0).tolist()
    assert answers.answered()[0] == 0 and 0 < answers.answered()[-1] < len(LENGTHS)
    labels = np.zeros(len(LENGTHS), np.int64)  # the argmax of NaN
    assert answers.accuracies(labels)["stream"][0] == 0


def test_streams_go_on_and_none_is_left(stream, folder) -> None:
    clip = np.load(folder / "x.npy")[0]
    stream.push(clip[:, :11], "a")
    stream.push(clip[:, :5], "a, ended")
    logits = stream.clip_logits(["a", "a, ended"])
    assert sorted(stream.streams) == ["a", "a, ended"]
    assert close(stream.flush("a, ended")[-1].clip, logits["a, ended"])
    rest = stream.push(clip[:, 11:], "a") + stream.flush("a")
    stream.push(clip, "b")
    assert close(rest[-1].clip, stream.flush("b")[-1].clip) and not stream.streams
    with pytest.raises(UserError, match="stream c: no frames have come"):
        stream.clip_logits(["c"])


def early(folder: Path, *more: object, **changes: object) -> int:
    options = {
        "stream_model": folder / "stream/small.pdmodel",
        "clip_model": folder / "clips/small.pdmodel",
        "data_file": folder / "x.npy",
        "label_file": folder / "labels.pkl",
        "engine": ENGINE,
        **changes,
    }
    argv = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    return run_command(lambda: tool.main([*argv, "-np", *map(str, more)]))


def test_table_csv_and_figure(folder, answers, tmp_path, capsys) -> None:
    labels = answers.flushed[:, -1].argmax(axis=1)
    labels[[0, 3]] = (labels[[0, 3]] + 1) % 12
    written_labels(folder, labels.tolist())
    table, figure = tmp_path / "early.csv", tmp_path / "early.png"
    assert early(folder, "--output", table, "--figure", figure) == 0
    out = capsys.readouterr().out
    heading, *rows = list(csv.reader(table.open()))
    assert heading == ["share", "frames", "answered", "stream", "flushed", "clip"]
    assert [row[0] for row in rows] == [f"{n / 10:.1f}" for n in range(1, 11)]
    for s, (_, frames, answered, *values) in enumerate(rows):
        right = [
            sum(
                not np.isnan(logits[n, s, 0]) and logits[n, s].argmax() == labels[n]
                for n in range(len(LENGTHS))
            )
            for logits in (answers.stream, answers.flushed, answers.clip)
        ]
        assert values == [f"{number / len(LENGTHS):.4f}" for number in right]
        assert frames == f"{answers.frames[:, s].mean():.1f}"
        assert int(answered) == answers.answered()[s]
    assert rows[-1][4] == f"{5 / 7:.4f}" and " 71.43 %" in out
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_bad_input_is_one_line(folder, tmp_path, capsys) -> None:
    written_labels(folder, [0] * len(LENGTHS))
    models = {name: folder / f"{name}/small.pdmodel" for name in ("stream", "clips")}
    changed = {}
    for name, values in {
        "other": {"weights_sha256": "0" * 64, "weights": "other.pdparams"},
        "random": {"weights_sha256": "", "weights": "fresh"},
        "persons": {"clip_persons": 1},
    }.items():
        changed[name] = Path(shutil.copytree(folder / "clips", tmp_path / name)) / "small.pdmodel"
        meta = StaticMeta.load(meta_path(changed[name]))
        dataclasses.replace(meta, **values).save(meta_path(changed[name]))
    pickle.dump(([f"c{n}" for n in range(7)], None), (tmp_path / "none.pkl").open("wb"))
    np.save(tmp_path / "alone.npy", np.load(folder / "x.npy"))
    cases: list[tuple[dict[str, object], str]] = [
        ({"clip_model": changed["other"]}, f"{changed['other']} (other.pdparams, SHA-256 00000000"),
        ({"clip_model": changed["other"]}, f"{models['stream']} (small.pdparams, SHA-256 "),
        ({"clip_model": changed["random"]}, "(fresh, SHA-256 none) are not of the same trained"),
        ({"clip_model": changed["persons"]}, "differ in clip_persons; export both"),
        ({"stream_model": models["clips"]}, "a model of the clips contract; write it with"),
        ({"clip_model": models["stream"]}, "a model of the stream contract; write it with"),
        ({"clip_model": tmp_path / "no.pdmodel"}, "no such file, or without .meta.yaml; write"),
        ({"label_file": tmp_path / "none.pkl"}, "x.npy: has no label file beside it"),
        ({"data_file": tmp_path / "no.npy"}, "no.npy: no such file"),
        ({"output": tmp_path / "t.txt"}, "t.txt; allowed: a name that ends in .csv"),
        ({"figure": tmp_path / "t.jpg"}, "t.jpg; allowed: a name that ends in .png"),
        ({"cpu_threads": 0}, "--cpu_threads is 0; allowed: 1 to"),
    ]
    for changes, message in cases:
        assert early(folder, **changes) == 2, message
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_clips_that_are_prepared_as_a_whole_are_refused(stream) -> None:
    resampled = dataclasses.replace(stream.input.pipeline, resample=True)
    for change in ({"transform": True}, {"pipeline": resampled}):
        with pytest.raises(UserError, match="small.pdmodel: its clips .* needs all frames"):
            tool.check_live(dataclasses.replace(stream.input, **change), Path("small.pdmodel"))


def test_broken_clips_are_named(folder, stream, clip_model, tmp_path) -> None:
    clips = np.load(folder / "x.npy")
    clips[3, 0, 2, 1, 0] = np.nan
    np.save(tmp_path / "nan.npy", clips)
    with pytest.raises(UserError, match="nan.npy, clip 3: .*NaN"):
        tool.all_answers(stream, clip_model, open_clips(tmp_path / "nan.npy"), progress=False)
