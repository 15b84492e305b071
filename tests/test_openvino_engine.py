"""OpenVINO's own runtime: static shapes for frequent lengths, and the limit of its programs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from small_models import SMALL

import configs
from dataset.protocols import data_spec
from deploy.engines import openvino_engine
from deploy.engines.engine import open_engine
from deploy.engines.openvino_engine import OpenVINOEngine
from deploy.exporting.contracts import ExportOptions
from deploy.exporting.export import export_network
from errors import UserError
from tests.networks import network_of
from tests.processes import run_python

FRAMES = 64  # enough to truncate clips, unlike in the fixture `models`


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    keys = {**SMALL, "dataset_args.ntu.num_frame": FRAMES}
    config = configs.load("9001", keys)
    spec = data_spec(config.dataset, config.data.own_layout)
    options = ExportOptions(per_person=True)
    return export_network(network_of(config), config, spec, options, folder)


def engine_of(model_file: Path, cpu_threads: int = 2) -> OpenVINOEngine:
    return OpenVINOEngine(model_file, model_file.with_suffix(".pdiparams"), cpu_threads)


def feeds(frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    clips = np.random.RandomState(seed).standard_normal((1, 25, 18, frames)).astype(np.float32)
    return {"clips": clips, "cut": np.full((1, 1, 1, 1), 1 - frames / FRAMES, np.float32)}


def test_a_frequent_shape_is_compiled_as_a_static_shape(model_file: Path, monkeypatch) -> None:
    monkeypatch.setattr(openvino_engine, "STATIC_AFTER", 2)
    engine = engine_of(model_file)
    assert list(engine.inputs.items()) == [("clips", [-1, 25, 18, -1]), ("cut", [-1, 1, 1, 1])]
    answers = [engine.run(feeds(48))[0] for _ in range(4)]
    own = (True, ((1, 25, 18, 48), (1, 1, 1, 1)))
    assert list(engine._programs) == [(True, None), own]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=0, atol=1e-6)
    engine.run(feeds(56), exclusive=False)
    assert list(engine._programs)[2:] == [(False, None)]


def test_compiled_models_are_limited(model_file: Path, monkeypatch) -> None:
    """Lengths beyond the limit use the dynamic model, and no compiled model is dropped for them."""
    monkeypatch.setattr(openvino_engine, "STATIC_AFTER", 0)
    monkeypatch.setattr(openvino_engine, "MAX_PROGRAMS", 2)
    engine = engine_of(model_file)
    answers = [engine.run(feeds(frames))[0] for frames in (40, 48, 56, 40, 56)]
    assert [shapes and shapes[0][-1] for _, shapes in engine._programs] == [40, 48, None]
    np.testing.assert_array_equal(answers[0], answers[3])
    np.testing.assert_array_equal(answers[2], answers[4])


def test_concurrent_runs_equal_exclusive_ones(model_file: Path) -> None:
    engine = engine_of(model_file)
    expected = [engine.run(feeds(48, seed))[0] for seed in range(8)]
    found: dict[int, np.ndarray] = {}

    def work(seeds: range) -> None:
        for seed in seeds:
            found[seed] = engine.run(feeds(48, seed), exclusive=False)[0]

    threads = [threading.Thread(target=work, args=(range(n, 8, 2),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    for seed in range(8):
        np.testing.assert_allclose(found[seed], expected[seed], rtol=0, atol=1e-6)


def test_two_threads_start_at_the_same_time(model_file: Path) -> None:
    """In a new process: OpenVINO deadlocks where two threads create its first tensors."""
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
    done.append(engine.run(feeds, exclusive=False))
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join(300) for thread in threads]
os._exit(len(done))
"""
    for _ in range(3):
        assert run_python("-c", code).returncode == 2


def test_wrong_files_are_refused(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.pdmodel: no such file"):
        open_engine(tmp_path / "none.pdmodel", None, "openvino", 1)
    (tmp_path / "m.pdmodel").write_bytes(b"\0" * 100)
    (tmp_path / "m.pdiparams").write_bytes(b"")
    with pytest.raises(UserError, match="m.pdmodel: OpenVINO cannot load it"):
        engine_of(tmp_path / "m.pdmodel")
