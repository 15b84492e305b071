"""The Python API of static inference, as a server calls it."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import export as export_cli
from dataset.storage import open_clips
from deploy.engines import probe as apart
from deploy.predictor import LARGEST, Predictor
from errors import UserError
from tests.processes import ROOT, run_python
from tests.small_models import SET, eval_clips, logits_by_dygraph

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
        (np.float32(1), r"shape \(\); the model wants \(N, 3, T, 25, 2\), T 16 or more"),
        (np.zeros((0, *SHAPE[1:])), r"shape \(0, 3, 16, 25, 2\); the model wants \(N, 3"),
        (np.zeros(SHAPE[1:]), r"shape \(3, 16, 25, 2\); the model wants"),
        (np.zeros((2, 16, 3, 25, 2)), r"shape \(2, 16, 3, 25, 2\); the model wants"),
        (np.zeros((2, 3, 16, 2, 25)), "16 frames, 2 joints, 25 persons; the model wants"),
        (np.zeros((2, 3, 15, 25, 2)), "15 frames, 25 joints, 2 persons; the model wants"),
        (holding(np.nan), "clip 1 of this batch holds NaN or infinity"),
        (holding(-np.inf), "clip 1 of this batch holds NaN or infinity"),
        (holding(np.inf, np.float16), "clip 1 of this batch holds NaN or infinity"),
        (holding(-1e300, np.float64), r"clip 1 of this batch holds 1e\+300; allowed: .* 1e\+09"),
        (holding(2 * LARGEST), r"clip 1 of this batch holds 2e\+09"),
        (holding(-(2**62), np.int64), r"clip 1 of this batch holds 4.61e\+18"),
    ],
)
def test_what_are_no_clips_is_refused_by_name(
    predictor: Predictor, clips: object, message: str
) -> None:
    with pytest.raises(UserError, match=f"(?s)^clips?:? ?{message.removeprefix('clip ')}"):
        predictor.run(clips)


def test_every_kind_of_real_number_is_taken(models: Path, predictor: Predictor) -> None:
    """Lists too; and the largest numbers that are allowed give an answer."""
    clips = np.random.RandomState(0).randint(-3, 4, SHAPE)
    expected = logits_by_dygraph(models, clips)
    for kind in (np.int8, np.int64, np.float16, np.float32, np.float64, np.dtype(">f4")):
        np.testing.assert_allclose(predictor.run(clips.astype(kind)).logits, expected, atol=1e-4)
    np.testing.assert_allclose(predictor.run(clips.tolist()).logits, expected, atol=1e-4)
    assert np.isfinite(predictor.run(LARGEST / 3 * clips).logits).all()


def test_one_predictor_a_thread(models: Path, tiny_data: Path) -> None:
    """Three at once, of two engines, answer as each does alone; they are loaded at once too."""
    clips = np.array(open_clips(eval_clips(tiny_data)).data)
    model_file = models / "person/small.pdmodel"
    engines = ("paddle", "openvino", "paddle")
    alone = {
        name: Predictor.load(model_file, engine=name, cpu_threads=1).run(clips).logits
        for name in set(engines)
    }
    found: dict[int, list[np.ndarray]] = {}
    start = threading.Barrier(len(engines))

    def serve(number: int) -> None:
        start.wait()
        model = Predictor.load(model_file, engine=engines[number], cpu_threads=1)
        found[number] = [model.run(clips).logits for _ in range(5)]

    threads = [threading.Thread(target=serve, args=(n,)) for n in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(found) == [0, 1, 2]
    for number, answers in found.items():
        for logits in answers:
            np.testing.assert_allclose(logits, alone[engines[number]], rtol=0, atol=1e-5)


def test_two_engines_in_one_process(models: Path, tiny_data: Path) -> None:
    """In turns, each with a model of its own form."""
    clips = np.array(open_clips(eval_clips(tiny_data)).data[:6])
    expected = logits_by_dygraph(models, clips)
    first = Predictor.load(models / "whole/small.pdmodel", engine="openvino", cpu_threads=1)
    second = Predictor.load(models / "fixed/small.pdmodel", engine="paddle", cpu_threads=1)
    assert (first.engine.name, second.engine.name) == ("openvino", "paddle")
    for part in (slice(0, 6), slice(2, 3), slice(1, 5)):
        for model in (first, second):
            np.testing.assert_allclose(model.run(clips[part]).logits, expected[part], atol=1e-4)


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


def test_the_example_of_the_manual_runs(models: Path, tmp_path: Path) -> None:
    for suffix in (".pdmodel", ".pdiparams", ".meta.yaml"):
        shutil.copy(models / f"person/small{suffix}", tmp_path / f"xsub{suffix}")
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    done = run_python("-c", example, cwd=tmp_path, environ={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "(1, 12)\n", done.stderr


def test_a_model_that_ends_its_process_or_hangs_is_refused(tmp_path: Path, monkeypatch) -> None:
    """What has no metadata is tried elsewhere first."""
    model, params = tmp_path / "m.pdmodel", tmp_path / "m.pdiparams"
    model.write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="m.pdmodel: not a static model of Paddle"):
        Predictor.load(model, params_file=model, engine="paddle")
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killed.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(killed))
        with pytest.raises(UserError, match="for engine paddle: .* ended with code -11"):
            apart.try_apart(model, params, "paddle", 1)
    monkeypatch.setattr(apart, "SECONDS", 0.01)
    with pytest.raises(UserError, match="m.pdmodel: no answer within 0 s; damaged?"):
        Predictor.load(model, engine="paddle")
