"""OpenVINO's own runtime: programs for shapes that keep coming, kept programs, kept blobs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from small_models import SMALL

import configs
import export
from deploy.engines import openvino_engine
from deploy.engines.engine import open_engine
from deploy.engines.openvino_engine import OpenVINOEngine, cache_folder
from errors import UserError
from tests.processes import run_python

FRAMES = 64  # room for a cut tail, which the `models` fixture has not


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    keys = {**SMALL, "dataset_args.ntu.num_frame": FRAMES}
    target = export.export(configs.load("9001", keys), folder, per_person=True)
    return Path(f"{target}.pdmodel")


def engine_of(model_file: Path, cpu_threads: int = 2) -> OpenVINOEngine:
    return OpenVINOEngine(model_file, model_file.with_suffix(".pdiparams"), cpu_threads)


def feeds(frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    clips = np.random.RandomState(seed).standard_normal((1, 25, 18, frames)).astype(np.float32)
    return {"clips": clips, "cut": np.full((1, 1, 1, 1), 1 - frames / FRAMES, np.float32)}


def test_a_shape_that_keeps_coming_gets_its_own_program(model_file: Path, monkeypatch) -> None:
    monkeypatch.setattr(openvino_engine, "OWN_AFTER", 2)
    engine = engine_of(model_file)
    assert list(engine.inputs.items()) == [("clips", [-1, 25, 18, -1]), ("cut", [-1, 1, 1, 1])]
    answers = [engine.run(feeds(48))[0] for _ in range(4)]
    own = (True, ((1, 25, 18, 48), (1, 1, 1, 1)))
    assert list(engine._programs) == [(True, None), own]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=0, atol=1e-6)
    engine.run(feeds(56), alone=False)
    assert list(engine._programs)[2:] == [(False, None)]


def test_programs_are_few(model_file: Path, monkeypatch) -> None:
    """Lengths beyond the bound take the program for all, and no program is dropped for them."""
    monkeypatch.setattr(openvino_engine, "OWN_AFTER", 0)
    monkeypatch.setattr(openvino_engine, "MAX_PROGRAMS", 2)
    engine = engine_of(model_file)
    answers = [engine.run(feeds(frames))[0] for frames in (40, 48, 56, 40, 56)]
    assert [shapes and shapes[0][-1] for _, shapes in engine._programs] == [40, 48, None]
    np.testing.assert_array_equal(answers[0], answers[3])
    np.testing.assert_array_equal(answers[2], answers[4])


def test_streams_answer_like_one(model_file: Path) -> None:
    engine = engine_of(model_file)
    expected = [engine.run(feeds(48, seed))[0] for seed in range(8)]
    found: dict[int, np.ndarray] = {}

    def work(seeds: range) -> None:
        for seed in seeds:
            found[seed] = engine.run(feeds(48, seed), alone=False)[0]

    threads = [threading.Thread(target=work, args=(range(n, 8, 2),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    for seed in range(8):
        np.testing.assert_allclose(found[seed], expected[seed], rtol=0, atol=1e-6)


def test_two_threads_begin_together(model_file: Path) -> None:
    """In a fresh process: OpenVINO waits for ever where two threads make its first tensors."""
    code = f"""
import os, threading
import numpy as np
from pathlib import Path
from deploy.engines.openvino_engine import OpenVINOEngine
file = Path({str(model_file)!r})
engine = OpenVINOEngine(file, file.with_suffix(".pdiparams"), 2)
feeds = {{"clips": np.zeros((1, 25, 18, 48), np.float32)}}
feeds["cut"] = np.full((1, 1, 1, 1), 0.25, np.float32)
done, start = [], threading.Barrier(2)
def work():
    start.wait()
    done.append(engine.run(feeds, alone=False))
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join(300) for thread in threads]
os._exit(len(done))
"""
    for _ in range(3):
        assert run_python("-c", code).returncode == 2


def test_blobs_are_kept_and_few(model_file: Path, tmp_path: Path, monkeypatch) -> None:
    """A damaged one is not believed; of too many the oldest go; without a cache it works too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = engine_of(model_file).run(feeds(48))[0]
    folder = cache_folder()
    blobs = list(folder.glob("*.blob"))
    assert folder.is_relative_to(tmp_path) and len(blobs) == 1
    blobs[0].write_bytes(blobs[0].read_bytes()[:1000])
    np.testing.assert_allclose(engine_of(model_file).run(feeds(48))[0], expected, atol=1e-6)
    for number in range(5):
        (folder / f"{number}.blob").write_bytes(b"")
    monkeypatch.setattr(openvino_engine, "MAX_BLOBS", 3)
    assert cache_folder() == folder and len(list(folder.glob("*.blob"))) == 3
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder() is None
    np.testing.assert_allclose(engine_of(model_file).run(feeds(48))[0], expected, atol=1e-6)


def test_wrong_files_are_refused(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.pdmodel: no such file"):
        open_engine(tmp_path / "none.pdmodel", None, "openvino", 1)
    (tmp_path / "m.pdmodel").write_bytes(b"\0" * 100)
    (tmp_path / "m.pdiparams").write_bytes(b"")
    with pytest.raises(UserError, match="m.pdmodel: OpenVINO cannot load it"):
        engine_of(tmp_path / "m.pdmodel")
