"""The Python API of static inference, as a server calls it."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import configs
import export as export_cli
from dataset.pipeline import LARGEST
from dataset.storage import open_clips
from deploy.engines import engine as engines
from deploy.engines import probe
from deploy.predictor import Predictor
from errors import UserError
from reader.ntu.prenormalise import transform
from tests.networks import exported
from tests.processes import ROOT, run_python
from tests.small_models import SET, SMALL, eval_clips, logits_by_dygraph, write_weights

SHAPE = (2, 3, 16, 25, 2)


@pytest.fixture(scope="module")
def predictor(models: Path) -> Predictor:
    return Predictor.load(models / "whole/small.pdmodel", engine="paddle", cpu_threads=1)


def holding(value: float, dtype: type = np.float32) -> np.ndarray:
    """Two clips; the second holds the value."""
    clips = np.zeros(SHAPE, dtype)
    clips[1, 2, 7, 24, 1] = value
    return clips


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (np.zeros(SHAPE, object), "an array of object; allowed: real numbers"),
        (np.full(SHAPE, "1.0"), "an array of <U3; allowed: real"),
        (np.zeros(SHAPE, complex), "an array of complex128"),
        (np.zeros(SHAPE, bool), "an array of bool"),
        ([[1.0], [1.0, 2.0]], "lists of unequal length"),
        (None, "an array of object"),
        (np.float32(1), r"shape \(\); the model wants \(N, 3, T, 25, 2\), or fewer persons"),
        (np.zeros((0, *SHAPE[1:])), r"shape \(0, 3, 16, 25, 2\); the model wants \(N, 3"),
        (np.zeros(SHAPE[1:]), r"shape \(3, 16, 25, 2\); the model wants"),
        (np.zeros((2, 16, 3, 25, 2)), r"shape \(2, 16, 3, 25, 2\); the model wants"),
        (np.zeros((2, 3, 16, 2, 25)), "16 frames, 2 joints, 25 persons; the model wants"),
        (np.zeros((2, 3, 0, 25, 2)), r"shape \(2, 3, 0, 25, 2\); the model wants"),
        (np.zeros((2, 3, 16, 25, 0)), r"shape \(2, 3, 16, 25, 0\); the model wants"),
        (np.zeros((2, 3, 16, 25, 3)), "16 frames, 25 joints, 3 persons; .*: keep 2 of them"),
        (holding(np.nan), "clip 1 of this batch holds NaN or infinity"),
        (holding(-np.inf), "clip 1 of this batch holds NaN or infinity"),
        (holding(np.inf, np.float16), "clip 1 of this batch holds NaN or infinity"),
        (holding(-1e300, np.float64), r"clip 1 of this batch holds 1e\+300; allowed: .* 1e\+09"),
        (holding(2 * LARGEST), r"clip 1 of this batch holds 2e\+09"),
        (holding(-(2**62), np.int64), r"clip 1 of this batch holds 4.61e\+18"),
    ],
)
def test_values_that_are_not_clips_are_refused_by_name(
    predictor: Predictor, clips: object, message: str
) -> None:
    with pytest.raises(UserError, match=f"(?s)^clips?:? ?{message.removeprefix('clip ')}"):
        predictor.run(clips)


def test_every_type_of_real_number_is_taken(models: Path, predictor: Predictor) -> None:
    """Lists too; the largest numbers that are allowed give finite logits."""
    clips = np.random.RandomState(0).randint(-3, 4, SHAPE)
    expected = logits_by_dygraph(models, clips)
    for kind in (np.int8, np.int64, np.float16, np.float32, np.float64, np.dtype(">f4")):
        np.testing.assert_allclose(predictor.run(clips.astype(kind)).logits, expected, atol=1e-4)
    np.testing.assert_allclose(predictor.run(clips.tolist()).logits, expected, atol=1e-4)
    assert np.isfinite(predictor.run(LARGEST / 3 * clips).logits).all()


def test_one_predictor_per_thread(models: Path, tiny_data: Path) -> None:
    """Three predictors of two engines, loaded and run concurrently, give the logits of exclusive
    runs."""
    clips = np.array(open_clips(eval_clips(tiny_data)).data)
    model_file = models / "person/small.pdmodel"
    names = ("paddle", "openvino", "paddle")
    exclusive = {
        name: Predictor.load(model_file, engine=name, cpu_threads=1).run(clips).logits
        for name in set(names)
    }
    found: dict[int, list[np.ndarray]] = {}
    start = threading.Barrier(len(names))

    def serve(number: int) -> None:
        start.wait()
        model = Predictor.load(model_file, engine=names[number], cpu_threads=1)
        found[number] = [model.run(clips).logits for _ in range(5)]

    threads = [threading.Thread(target=serve, args=(n,)) for n in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(found) == [0, 1, 2]
    for number, answers in found.items():
        for logits in answers:
            np.testing.assert_allclose(logits, exclusive[names[number]], rtol=0, atol=1e-5)


def test_two_engines_in_one_process(models: Path, tiny_data: Path) -> None:
    """Alternating, each with another export of the same network."""
    clips = np.array(open_clips(eval_clips(tiny_data)).data[:6])
    expected = logits_by_dygraph(models, clips)
    first = Predictor.load(models / "whole/small.pdmodel", engine="openvino", cpu_threads=1)
    second = Predictor.load(models / "fixed/small.pdmodel", engine="paddle", cpu_threads=1)
    assert (first.engine.name, second.engine.name) == ("openvino", "paddle")
    for part in (slice(0, 6), slice(2, 3), slice(1, 5)):
        for model in (first, second):
            np.testing.assert_allclose(model.run(clips[part]).logits, expected[part], atol=1e-4)


class ToyEngine:
    """Gives every clip the class of its number of frames."""

    name = "toy"
    max_concurrency, preferred_batch, frame_step = 2, 3, 1

    def __init__(self, inputs: dict[str, list[int]]) -> None:
        self.inputs = inputs

    def run(self, feeds: dict[str, np.ndarray], *, exclusive: bool = True) -> list[np.ndarray]:
        clips = feeds[next(iter(self.inputs))]
        return [np.tile(np.eye(12, dtype=np.float32)[clips.shape[-1] % 12], (len(clips), 1))]


def test_an_engine_is_added_with_one_row(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model_file: Path, params_file: Path, cpu_threads: int) -> ToyEngine:
        assert model_file.suffix == ".pdmodel" and params_file.is_file() and cpu_threads == 1
        return ToyEngine(engines.load_engine(model_file, params_file, "openvino", 1).inputs)

    monkeypatch.setitem(engines.TABLE, "toy", engines.EngineRow((".pdmodel",), "cpu", load))
    assert engines.engines_for(".pdmodel", "cpu")[-1] == "toy"
    assert "toy" not in engines.engines_for(".onnx", "cpu")
    file = models / "whole/small.pdmodel"
    probe.mark_as_known(file, file.with_suffix(".pdiparams"), ["toy"])  # of this process alone
    model = Predictor.load(file, engine="toy", cpu_threads=1)
    scores = model.run(np.random.RandomState(0).standard_normal((7, 3, 20, 25, 2)))
    assert model.engine.name == "toy" and scores.logits.argmax(axis=1).tolist() == [16 % 12] * 7
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(UserError, match="engine toy does not run .onnx files; allowed: openvino"):
        engines.open_engine(tmp_path / "empty.onnx", None, "toy", 1)


def test_engines_are_tried_from_the_fastest_to_the_slowest() -> None:
    assert engines.CPU_ENGINES == {
        ".pdmodel": ("openvino", "paddle_openvino", "paddle", "onednn"),
        ".json": ("paddle",),
        ".onnx": ("openvino", "onnxruntime"),
    }
    assert engines.engines_for(".pdmodel", "gpu") == ("gpu", "tensorrt")
    assert engines.engines_for(".json", "gpu") == ("gpu",)
    assert engines.engines_for(".onnx", "gpu") == ()
    names = ("auto", "openvino", "paddle_openvino", "paddle", "onednn", "onnxruntime")
    assert names == engines.ENGINES


@pytest.fixture(scope="module")
def truncating(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Of 64 frames, which is enough to truncate clips, one person at a time."""
    keys = {**SMALL, "dataset_args.ntu.num_frame": 64}
    folder = tmp_path_factory.mktemp("truncating")
    write_weights(configs.load("9001", keys), folder / "w.pdparams")
    config = configs.load("9001", {**keys, "pretrained_path": str(folder / "w.pdparams")})
    program = exported(config, folder, per_person=True)
    return Predictor.load(program, engine="openvino", cpu_threads=1)


def clips_of(lengths: list[int]) -> np.ndarray:
    """(N, 3, 80, 25, 2) random clips of these lengths; the second person leaves after 5 frames."""
    clips = np.random.RandomState(0).standard_normal((len(lengths), 3, 80, 25, 2))
    for clip, length in zip(clips, lengths):
        clip[:, length:] = 0
        clip[:, 5:, :, 1] = 0
    return clips.astype(np.float32)


def test_known_lengths_give_the_same_scores(truncating: Predictor) -> None:
    """With every frame count the same, the logits are bit for bit those of the search."""
    lengths = [20, 0, 7, 64, 80, 41]
    clips = clips_of(lengths)
    expected = truncating.run(clips)
    for known in (lengths, [22, 3, 8, 66, 80, 41], np.array(lengths)):
        scores = truncating.run(clips, known)
        np.testing.assert_array_equal(scores.person_logits, expected.person_logits)
        np.testing.assert_array_equal(scores.exists, expected.exists)
    frames: list[int] = []
    prepared, known = truncating.input.prepare(clips, lengths)
    assert list(known) == [20, 0, 7, 64, 64, 41], "at most num_frame"
    for length in (known[0], None):
        frames.append(truncating.input.frames_needed(prepared[0], 1, length))
    assert frames[0] == frames[1] < 64


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([20, 19], "clip 1 of this batch has length 19, but data up to frame 19; allowed: zeros"),
        ([0, 20], "clip 0 of this batch has length 0, but data up to frame 19"),
        ([20, 81], "clip 1 of this batch has length 81; allowed: 0 to 80 frames"),
        ([-1, 20], "clip 0 of this batch has length -1; allowed: 0 to 80"),
        ([20], "1 lengths for 2 clips; allowed: one for each"),
    ],
)
def test_wrong_lengths_are_refused(truncating: Predictor, lengths: list[int], message: str) -> None:
    """They would give wrong logits without an error."""
    with pytest.raises(UserError, match=message):
        truncating.run(clips_of([20, 20]), lengths)


@pytest.mark.parametrize("name", ["whole", "person", "fixed"])
def test_short_clips_of_fewer_persons_are_padded(models: Path, name: str) -> None:
    """To the very logits of clips that are padded by hand, with and without lengths."""
    model = Predictor.load(models / f"{name}/small.pdmodel", engine="paddle", cpu_threads=1)
    padded = np.zeros((7, *SHAPE[1:]), np.float32)
    padded[:, :, :9, :, :1] = np.random.RandomState(0).standard_normal((7, 3, 9, 25, 1))
    expected = model.run(padded)
    np.testing.assert_allclose(expected.logits, logits_by_dygraph(models, padded), atol=1e-4)
    for frames, persons in ((9, 1), (9, 2), (16, 1), (12, 1)):
        for lengths in (None, [9] * 7):
            scores = model.run(padded[:, :, :frames, :, :persons], lengths)
            np.testing.assert_array_equal(scores.logits, expected.logits)
            np.testing.assert_array_equal(scores.exists, [[True, False]] * 7)


def test_padded_clips_are_truncated_and_resampled_like_padded_ones(truncating: Predictor) -> None:
    clips = clips_of([20, 7, 0, 20])
    expected = truncating.run(clips)
    for lengths in (None, [20, 7, 0, 20]):
        whole, short = (truncating.input.prepare(c, lengths) for c in (clips, clips[:, :, :20]))
        np.testing.assert_array_equal(short[0], whole[0])
        assert list(short[1]) == list(whole[1])
        scores = truncating.run(clips[:, :, :20], lengths)
        np.testing.assert_allclose(scores.logits, expected.logits, atol=1e-5)
    pipeline = replace(truncating.pipeline, resample=True)
    resampling = replace(truncating.input, pipeline=pipeline)
    one_person = resampling.prepare(clips[:, :, :20, :, :1], None)[0]
    clips[..., 1] = 0
    np.testing.assert_array_equal(one_person, resampling.prepare(clips, None)[0])


def test_transformed_clips_are_padded_as_the_transform_does(truncating: Predictor) -> None:
    """It repeats the frames to the end, so a zero-padded tail was never in its training data."""
    clips = clips_of([20, 20])
    clips[1, :, :20, :, 1] = clips[1, :, :20, ::-1, 0]  # two persons to the end
    clips[0, ..., 1] = 0
    wanted = np.stack([transform(clip)[:, :64] for clip in clips])
    short = np.stack([transform(clip[:, :20]) for clip in clips])
    transformed = replace(truncating.input, transform=True)
    for lengths in (None, [20, 20]):
        prepared, known = transformed.prepare(short, lengths)
        np.testing.assert_array_equal(prepared, wanted)
        assert known == [None, None], "it has no zero-padded tail"
    left_early = short[:1].copy()
    left_early[0, :, 4:] = 0
    prepared, _ = transformed.prepare(left_early, None)
    np.testing.assert_array_equal(prepared[0], short[0][:, np.arange(64) % 4])


def test_resampled_clips_have_no_tail(truncating: Predictor) -> None:
    """A length says nothing about a clip whose frames are spread over num_frame."""
    pipeline = replace(truncating.pipeline, resample=True)
    resampling = replace(truncating.input, pipeline=pipeline)
    _, known = resampling.prepare(clips_of([20, 30]), [20, 30])
    assert known == [None, None]


@pytest.mark.usefixtures("converter")
def test_a_changed_onnx_file_is_refused(models: Path, tmp_path: Path) -> None:
    """Its weights, and the metadata inside."""
    weights = ["-c", "9001", "-pp", str(models / "small.pdparams"), *SET]
    assert export_cli.main([*weights, "--format", "onnx", "--save_dir", str(tmp_path)]) == 0
    file = tmp_path / "small.onnx"
    assert Predictor.load(file, cpu_threads=1).meta.pipeline["num_frame"] == 16
    model = onnx.load(file)
    sound = model.graph.initializer[0].raw_data
    model.graph.initializer[0].raw_data = bytes([sound[0] ^ 1]) + sound[1:]
    onnx.save(model, file)
    with pytest.raises(UserError, match="small.onnx: was changed after export"):
        Predictor.load(file)
    model.graph.initializer[0].raw_data = sound
    onnx.save(model, file)
    Predictor.load(file, cpu_threads=1)
    next(p for p in model.metadata_props if p.key == "batch_size").value = "24"
    onnx.save(model, file)
    with pytest.raises(UserError, match="small.onnx: was changed after export"):
        Predictor.load(file)


def test_the_example_in_the_docs_runs(models: Path, tmp_path: Path) -> None:
    for suffix in (".pdmodel", ".pdiparams", ".meta.yaml"):
        shutil.copy(models / f"person/small{suffix}", tmp_path / f"xsub{suffix}")
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    done = run_python("-c", example, cwd=tmp_path, environ={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "(1, 12)\n", done.stderr
