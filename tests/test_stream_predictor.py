"""Streams over an exported step: equal to the clip model, independent of each other, robust."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import configs
import export as export_cli
from dataset.pipeline import ClipPipeline
from deploy.clip_input import ClipInput
from deploy.predictor import Predictor
from deploy.stream_clock import FrameClock
from deploy.stream_input import StreamInput
from deploy.stream_play import Playback
from deploy.stream_predictor import Answer, RunningMean, StreamPredictor
from errors import UserError
from tests.networks import NTU_25
from tests.processes import ROOT, run_python
from tests.small_models import SMALL, write_weights

CAUSAL = {**SMALL, "model_args.att_type": "stja-causal"}
FRAMES = 16  # of a training clip


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal network: its clip model, and its step with dynamic, fixed and dilated form, and of
    more frames."""
    folder = tmp_path_factory.mktemp("steps")
    write_weights(configs.load("9001", CAUSAL), folder / "small.pdparams")
    sets = [f"{key}={value}".replace("'", '"') for key, value in CAUSAL.items()]
    argv = ["-c", "9001", "-pp", str(folder / "small.pdparams"), "--set", *sets]
    for name, flags in {
        "clips": [],
        "step": ["--contract", "stream"],
        "fixed": ["--contract", "stream", "--batch_size", "4"],
        "dilated": ["--contract", "stream", "--dilated"],
        "longer": ["--contract", "stream", "--chunk", "6"],
    }.items():
        assert export_cli.main([*argv, "--save_dir", str(folder / name), *flags]) == 0
    return folder


def test_a_step_that_does_not_fit_the_stride_is_one_line(tmp_path: Path) -> None:
    argv = ["-c", "9001", "--contract", "stream", "--save_dir", str(tmp_path), "--set"]
    argv += [f"{key}={value}".replace("'", '"') for key, value in CAUSAL.items()]
    for chunk in ("3", "-2", "66"):
        with pytest.raises(UserError, match=f"step of {chunk} frames; allowed: multiples of 2 up"):
            export_cli.main([*argv, "--chunk", chunk])
    assert list(tmp_path.iterdir()) == []


def load(steps: Path, name: str = "step", **options: float | str) -> StreamPredictor:
    return StreamPredictor.load(steps / name / "small.pdmodel", **options)


@pytest.fixture(scope="module")
def predictor(steps: Path) -> StreamPredictor:
    return load(steps)


def recording(frames: int = FRAMES, persons: int = 2, seed: int = 0) -> np.ndarray:
    """(3, T, V, M) metres."""
    shape = (3, frames, 25, persons)
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def streamed(
    model: StreamPredictor, clip: np.ndarray, parts: Sequence[int], stream_id: str = "0"
) -> list[Answer]:
    """Pushed in parts of these sizes, the rest at once, and flushed."""
    answers: list[Answer] = []
    for part in parts:
        answers += model.push(clip[:, :part], stream_id) if part else []
        clip = clip[:, part:]
    if clip.shape[1]:
        answers += model.push(clip, stream_id)
    return answers + model.flush(stream_id)


def same(a: Sequence[Answer], b: Sequence[Answer], atol: float = 1e-5) -> None:
    assert [x.frame for x in a] == [x.frame for x in b]
    for x, y in zip(a, b):
        np.testing.assert_allclose(x.logits, y.logits, atol=atol)
        np.testing.assert_allclose(x.mean, y.mean, atol=atol)
    np.testing.assert_allclose(a[-1].clip, b[-1].clip, atol=atol)


@pytest.mark.parametrize("name", ["step", "fixed", "dilated", "longer"])
@pytest.mark.parametrize("parts", [(), (1,) * 15, (3, 1, 7), (16,)])
def test_a_flushed_clip_has_the_clip_models_logits(
    steps: Path, name: str, parts: Sequence[int]
) -> None:
    """Chunked in any way, velocities that look two frames ahead included."""
    clips = Predictor.load(steps / "clips/small.pdmodel")
    clip = recording()
    expected = clips.run(clip[None]).logits[0]
    answers = streamed(load(steps, name), clip, parts)
    np.testing.assert_allclose(answers[-1].clip, expected, rtol=0, atol=1e-5 * abs(expected).max())
    stride = 1 if name == "dilated" else 2
    assert [a.frame for a in answers] == list(range(0, FRAMES, stride))
    assert all(a.clip is None for a in answers[:-1])
    assert answers[-1].persons.mean(axis=0) == pytest.approx(answers[-1].clip)


def test_answers_come_as_soon_as_the_delay_allows(predictor: StreamPredictor) -> None:
    """With two frames more for the velocities, and in steps of two frames."""
    clip, came = recording(40), {}
    for t in range(40):
        for answer in predictor.push(clip[:, t : t + 1]):
            came[answer.frame] = t
    predictor.reset()
    delay, stride = predictor.plan.delay, predictor.plan.stride
    assert came and set(came) == set(range(0, max(came) + 1, stride))
    for frame, t in came.items():
        assert delay + 2 <= t - frame <= delay + 2 + 2 * (stride - 1)


def test_streams_share_nothing(steps: Path) -> None:
    """Three streams, interleaved in batches and of unequal speed, equal three alone."""
    clips = {f"s{n}": recording(20 + 7 * n, seed=n) for n in range(3)}
    alone = {name: streamed(load(steps), clip, ()) for name, clip in clips.items()}
    for model in (load(steps), load(steps, "fixed")):
        answers: dict[str, list[Answer]] = {name: [] for name in clips}
        left = dict(clips)
        while left:
            part = {name: clip[:, : n + 2] for n, (name, clip) in enumerate(left.items())}
            for name, found in model.push_all(part).items():
                answers[name] += found
            left = {n: c[:, part[n].shape[1] :] for n, c in left.items()}
            for name in [name for name, clip in left.items() if not clip.shape[1]]:
                answers[name] += model.flush(name)
                del left[name]
        assert model.streams == []
        for name in clips:
            same(answers[name], alone[name])


def test_a_saved_stream_goes_on_elsewhere(steps: Path, tmp_path: Path) -> None:
    clip, first = recording(30), load(steps, frame_rate=30.0)
    seconds = np.arange(30) / 30
    whole = first.push(clip, "a", seconds) + first.flush("a")
    begun = first.push(clip[:, :13], "b", seconds[:13])
    first.save(tmp_path / "b.npz", "b")
    first.push(recording(9, seed=5), "b", seconds[13:22])  # does not touch the file
    second = load(steps, frame_rate=30.0)
    second.restore(tmp_path / "b.npz", "c")
    rest = second.push(clip[:, 13:], "c", seconds[13:]) + second.flush("c")
    same(begun + rest, whole, atol=1e-7)
    without = load(steps)
    with pytest.raises(UserError, match="of a stream with times; load the predictor with frame_ra"):
        without.restore(tmp_path / "b.npz")
    assert without.streams == []
    with pytest.raises(UserError, match="b.npz: of 30 frames/s; the predictor has 25"):
        load(steps, frame_rate=25.0).restore(tmp_path / "b.npz")
    with pytest.raises(UserError, match="the state of another model; start the stream again"):
        load(steps, "dilated").restore(tmp_path / "b.npz")


def test_damaged_states_are_one_line(steps: Path, tmp_path: Path) -> None:
    model = load(steps)
    model.push(recording(9))
    model.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as content:
        arrays = {name: content[name] for name in content.files}
    changes = {
        "waiting": arrays["waiting"][..., :24, :, :],
        "total": np.full_like(arrays["total"], np.nan),
        "mean.ring": arrays["mean.ring"][:-1],
        "input.held": np.zeros((3, 2, 20, 2), np.float32),
        "state.first": np.array(1.5),
    }
    for name, bad in changes.items():
        np.savez(tmp_path / "bad.npz", **{**arrays, name: bad})
        with pytest.raises(UserError, match="bad.npz: "):
            model.restore(tmp_path / "bad.npz", "x")
    for content in (b"", b"PK\x03\x04 no zip", b"text"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UserError, match="bad.npz: not the state of a stream: "):
            model.restore(tmp_path / "bad.npz", "x")
    assert model.streams == ["0"]


def test_the_mean_ramps_up_and_then_rolls(predictor: StreamPredictor) -> None:
    """Eight positions are the 16 frames of a training clip."""
    answers = streamed(predictor, recording(50), ())
    logits = np.array([a.logits for a in answers])
    assert len(answers) == 25
    for n, answer in enumerate(answers):
        np.testing.assert_allclose(answer.mean, logits[max(n - 7, 0) : n + 1].mean(0), atol=1e-5)


def test_the_window_is_a_choice(steps: Path) -> None:
    answers = streamed(load(steps, window=4), recording(20), ())
    expected = (answers[-2].logits + answers[-1].logits) / 2
    np.testing.assert_allclose(answers[-1].mean, expected, atol=1e-6)


def test_a_running_mean_does_not_drift() -> None:
    rows = (1e4 * np.random.RandomState(0).standard_normal((100_000, 1, 1))).astype(np.float32)
    mean = RunningMean(7, (1, 1))
    for row in rows:
        mean.push(row)
    assert mean.value[0, 0] == pytest.approx(rows[-7:].mean(dtype=np.float64), rel=1e-9)


def test_memory_is_flat(predictor: StreamPredictor) -> None:
    clip = recording(200)
    sizes = []
    for _ in range(3):
        predictor.push(clip)
        arrays = predictor._streams["0"].arrays()
        sizes.append(sum(array.nbytes for array in arrays.values()))
    predictor.reset()
    assert sizes[0] == sizes[1] == sizes[2] < 3e6


def test_short_streams_and_ends_in_mid_step(steps: Path) -> None:
    """The answer is that of the clip network for as many frames."""
    network = StreamPredictor.load(steps / "step/small.pdmodel", engine="paddle")
    for frames in (1, 2, 3, 5):
        clip = recording(frames)
        a, b = streamed(load(steps), clip, ()), streamed(network, clip, (1,) * frames)
        same(a, b)
        assert [x.frame for x in a] == list(range(0, frames, 2))


def test_persons_may_be_fewer_and_joints_missing(predictor: StreamPredictor) -> None:
    clip = recording(20, persons=1)
    both = np.concatenate([clip, np.zeros_like(clip)], axis=3)
    same(streamed(predictor, clip, ()), streamed(predictor, both, ()), atol=0)
    lost, holes = both.copy(), both.copy()
    holes[:, 3, 7, 0] = 0
    lost[1, 3, 7, 0] = np.nan
    predictor.push(lost)
    assert predictor.missing() == 1
    answers = predictor.flush()
    np.testing.assert_array_equal(answers[-1].clip, streamed(predictor, holes, ())[-1].clip)
    # A person who leaves, and one who comes later into the other slot.
    changing = np.concatenate([both[:, :10], both[:, 10:, :, ::-1]], axis=1)
    parts = predictor.push(both[:, :10]) + predictor.push(changing[:, 10:])
    same(parts + predictor.flush(), streamed(predictor, changing, ()), atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((3, 2, 20, 2)), "frames of 20 joints and 2 persons; allowed: .3, F, 25, M"),
        (np.zeros((3, 2, 25, 3)), "frames of 25 joints and 3 persons"),
        (np.zeros((2, 25, 3)), r"frames of shape \(2, 25, 3\)"),
        (np.zeros((3, 0, 25, 1)), "frames of shape"),
        (np.full((3, 1, 25, 1), 1e12), "coordinate beyond"),
        (np.full((3, 1, 25, 1), np.inf), "coordinate beyond"),
        ("text", "real numbers"),
    ],
)
def test_bad_frames_leave_the_stream_as_it_was(
    predictor: StreamPredictor, frames: object, message: str
) -> None:
    clip = recording(20)
    whole = streamed(predictor, clip, ())
    answers = predictor.push(clip[:, :9])
    with pytest.raises(UserError, match=f"stream 0: .*{message}"):
        predictor.push(frames)
    with pytest.raises(UserError, match="stream new: "):
        predictor.push(frames, "new")
    assert predictor.streams == ["0"]
    answers += predictor.push(clip[:, 9:]) + predictor.flush()
    same(answers, whole)


def test_a_reset_stream_starts_anew(predictor: StreamPredictor) -> None:
    whole = streamed(predictor, recording(20), ())
    predictor.push(recording(13, seed=9))
    predictor.reset()
    same(streamed(predictor, recording(20), (5,)), whole, atol=1e-6)
    predictor.reset("none")  # nothing to forget


def test_a_model_without_metadata_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "m.pdmodel").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="m.pdmodel: has no .meta.yaml; export again with --contr"):
        StreamPredictor.load(tmp_path / "m.pdmodel")
    with pytest.raises(UserError, match="n.pdmodel: no such file"):
        StreamPredictor.load(tmp_path / "n.pdmodel")


def test_what_does_not_belong_together_is_refused(steps: Path) -> None:
    with pytest.raises(UserError, match="follows the clips contract.*--contract stream"):
        load(steps, "clips")
    with pytest.raises(UserError, match="follows the stream contract.*infer.py --stream"):
        Predictor.load(steps / "step/small.pdmodel")
    with pytest.raises(UserError, match="stream 7: no frames have come; open streams: none"):
        load(steps).flush("7")
    with pytest.raises(UserError, match="frame_rate is 0; allowed"):
        load(steps, frame_rate=0)
    with pytest.raises(
        UserError, match="if, and only if, the predictor was loaded with the frame_"
    ):
        load(steps, frame_rate=30.0).push(recording(2))
    with pytest.raises(UserError, match="if, and only if"):
        load(steps).push(recording(2), seconds=[0, 1])
    with pytest.raises(UserError, match="stream b: .*if, and only if"):
        both = {"a": recording(2), "b": recording(2)}
        load(steps, frame_rate=30.0).push_all(both, {"a": [0, 1]})


def test_the_example_in_the_docs_runs(steps: Path) -> None:
    """With a network of 25 joints, under the name that the page uses."""
    (steps / "step/last.pdmodel").write_bytes((steps / "step/small.pdmodel").read_bytes())
    for suffix in (".pdiparams", ".meta.yaml"):
        (steps / f"step/last{suffix}").write_bytes((steps / f"step/small{suffix}").read_bytes())
    text = (ROOT / "docs/streaming.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0].replace("50, 20, 1", "50, 25, 1")
    done = run_python("-c", example, cwd=steps, environ={"PYTHONPATH": str(ROOT)})
    lines = done.stdout.splitlines()
    # All even positions but those that come with the end, then the name of the clip's class.
    assert len(lines) > 12 and lines[0].startswith("0 ") and lines[1].startswith("2 "), done.stderr
    assert not lines[-1][0].isdigit()


def model_clip(answers: Sequence[Answer]) -> np.ndarray:
    return np.mean([answer.logits for answer in answers], axis=0)


def test_a_network_without_delay_has_answered_before_the_end(tmp_path: Path) -> None:
    """RT-ST-GCN: the last answer comes again, with the logits of the clip."""
    sets = ["model_args.in_channel=8", "model_args.block_args=[[8,1],[8,2]]"]
    argv = ["-c", "4201", "--contract", "stream", "--save_dir", str(tmp_path), "--set", *sets]
    assert export_cli.main(argv) == 0
    (file,) = tmp_path.glob("*.pdmodel")
    model = StreamPredictor.load(file)
    clip = np.random.RandomState(0).standard_normal((3, 9, 20, 1)).astype(np.float32)
    answers = model.push(clip)
    model.save(tmp_path / "s.npz")
    same(model.flush(), [dataclasses.replace(answers[-1], clip=model_clip(answers))])
    model.restore(tmp_path / "s.npz")
    (last,) = model.flush()
    assert [a.frame for a in answers] == list(range(9)) and last.frame == 8
    np.testing.assert_allclose(last.clip, model_clip(answers), atol=1e-6)
    row = Playback(model, 1).frames(clip, "x")
    assert [entry["frame"] for entry in row["timeline"]] == list(range(9))


@pytest.mark.parametrize("inputs", ["J", "V", "JVB", "XM", "MN"])
def test_live_features_are_those_of_the_whole_clip(inputs: str) -> None:
    """Centred on the first origin joint, which appears in the fourth frame here."""
    pipeline = ClipPipeline(inputs, 30, centre=True)
    clip = recording(30)
    clip[:, :3, NTU_25.origin] = 0
    clip[:, 5, 3] = 0
    expected = pipeline.features(pipeline.prepare(clip, NTU_25), NTU_25).reshape(2, 25, -1, 30)
    for parts in ([30], [1] * 30, [2, 1, 13, 14]):
        stream, found = StreamInput(ClipInput(NTU_25, pipeline, 2)), []
        for start, size in zip(np.cumsum([0, *parts]), parts):
            found.append(stream.push(stream.checked(clip[:, start : start + size])))
        found.append(stream.finish())
        np.testing.assert_array_equal(np.concatenate(found, axis=-1), expected)


def test_frames_without_an_origin_joint_are_not_held_for_ever() -> None:
    """After as many frames as a clip has, they are taken as they are, like a clip without one."""
    pipeline = ClipPipeline("X", 6, centre=True)
    clip = recording(20)
    clip[:, :10, NTU_25.origin] = 0
    stream = StreamInput(ClipInput(NTU_25, pipeline, 2))
    sizes = [stream.push(stream.checked(clip[:, t : t + 1])).shape[-1] for t in range(20)]
    assert sizes == [0] * 5 + [6] + [1] * 14
    stream = StreamInput(ClipInput(NTU_25, pipeline, 2))
    empty = np.zeros((3, 4, 25, 2), np.float32)
    assert stream.push(stream.checked(empty)).shape[-1] == 4  # nothing to centre


def test_another_frame_rate_keeps_the_speed_of_motion() -> None:
    """A joint that moves 3 units a second is at 3 t in frames of any camera."""

    def at(times: np.ndarray) -> np.ndarray:
        frames = np.ones((3, len(times), 1, 1), np.float32)
        frames[0, :, 0, 0] = 1 + 3 * times
        return frames

    for rate in (10.0, 25.0, 30.0, 50.0):
        times = 5 + np.arange(int(2 * rate)) / rate
        clock = FrameClock(30.0, 1, 1)
        made = np.concatenate(
            [clock.push(at(times[t : t + 1] - 5), times[t : t + 1]) for t in range(len(times))], 1
        )
        expected = 1 + 3 * np.arange(made.shape[1]) / 30
        np.testing.assert_allclose(made[0, :, 0, 0], expected, atol=1e-4)
        assert abs(made.shape[1] - 60) <= 30 / rate + 1


def test_dropped_repeated_and_late_frames() -> None:
    frames = np.arange(1, 7, dtype=np.float32).reshape(1, 6, 1, 1).repeat(3, axis=0)
    clock = FrameClock(10.0, 1, 1)
    # 0.1 is dropped, 0.2 comes twice, then a joint is missing, then nobody for a second.
    assert clock.push(frames[:, :2], [0.0, 0.2])[0].ravel() == pytest.approx([1, 1.5, 2])
    assert clock.push(frames[:, 2:3], [0.2]).shape[1] == 0
    missing = np.zeros((3, 1, 1, 1), np.float32)
    assert clock.push(missing, [0.4])[0].ravel().tolist() == [0, 0]
    gap = clock.push(frames[:, 5:], [1.4])[0].ravel()
    assert gap.tolist() == [0] * 9 + [6]
    with pytest.raises(UserError, match="times that decrease"):
        clock.push(frames[:, :1], [1.0])
    with pytest.raises(UserError, match="jump by 32 s; allowed: 5 s; give seconds"):
        clock.push(frames[:, :1], [33.4])
    with pytest.raises(UserError, match="1 times for 2 frames"):
        clock.push(frames[:, :2], [2.0])
    with pytest.raises(UserError, match="allowed: seconds of each"):
        clock.push(frames[:, :1], [np.nan])
