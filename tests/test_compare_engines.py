"""tools/compare_engines.py: agreement and speed of every engine that runs a model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import export as export_cli
from deploy.engines.engine import CPU_ENGINES
from deploy.engines.paddle_engine import PaddleEngine
from deploy.predictor import Predictor
from errors import UserError, run_command
from tests.small_models import SET, eval_clips
from tools import compare_engines

ROW = r"^(\w+ \(\.\w+\)) +(\S+) +(\d+)/(\d+) +([\d.]+) +([\d.]+) to +([\d.]+) +([\d.]+)$"

NAMES = [f"{n} ({suffix})" for suffix in (".pdmodel", ".onnx") for n in CPU_ENGINES[suffix]]


@pytest.fixture(scope="module")
def both(converter: None, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model as .pdmodel and as .onnx, without suffix."""
    folder = tmp_path_factory.mktemp("both")
    for file in (models / "person").iterdir():
        shutil.copy(file, folder)
    argv = ["-c", "9001", "-pp", str(models / "small.pdparams"), *SET, "--per_person"]
    assert export_cli.main([*argv, "--format", "onnx", "--save_dir", str(folder)]) == 0
    return folder / "small"


def compare(*argv: object) -> int:
    return run_command(lambda: compare_engines.main([str(a) for a in argv]))


def test_all_engines_of_all_files(both: Path, capsys) -> None:
    assert compare(both, "--clips", 5, "--rounds", 2, "--cpu_threads", 1) == 0
    out = capsys.readouterr().out
    rows = re.findall(ROW, out, re.MULTILINE)
    assert [row[0] for row in rows] == NAMES
    scale = float(re.search(r"logits: (\S+)", out)[1])
    assert float(rows[0][1]) == 0 and all(float(row[1]) < 1e-4 * scale for row in rows)
    for _, _, same, clips, middle, low, high, rate in rows:
        assert same == clips == "5"
        assert float(low) <= float(middle) <= float(high)
        assert float(rate) == pytest.approx(5000 / float(middle), rel=0.05)


def test_clips_of_a_file_and_an_engine_that_disagrees(
    both: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = PaddleEngine.run

    def wrong(self, *args, **kwargs):
        logits = run(self, *args, **kwargs)[0]
        return [logits + np.float32(1e-3) * np.abs(logits).max() * (self.name == "paddle")]

    monkeypatch.setattr(PaddleEngine, "run", wrong)
    data = eval_clips(tiny_data)
    argv = [f"{both}.pdmodel", "--data_file", data, "--clips", 3, "--rounds", 1]
    assert compare(*argv) == 1
    out = capsys.readouterr().out
    assert out.endswith("more than 1e-04 of the largest apart: paddle (.pdmodel)\n")
    assert len(re.findall(ROW, out, re.MULTILINE)) == len(NAMES)


def test_an_engine_that_fails_is_listed(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    real = Predictor.load

    def fails(file: Path, *, engine: str, cpu_threads: int) -> Predictor:
        if file.suffix == ".pdmodel":
            raise UserError("not in this build")
        return real(file, engine=engine, cpu_threads=cpu_threads)

    monkeypatch.setattr(Predictor, "load", fails)
    assert compare(both, "--clips", 2, "--rounds", 1) == 0
    out = capsys.readouterr().out
    assert "paddle (.pdmodel) does not run it: not in this build\n" in out
    rows = [row[0] for row in re.findall(ROW, out, re.MULTILINE)]
    assert rows == [name for name in NAMES if ".onnx" in name]
    for suffix in (".pdmodel", ".pdiparams", ".meta.yaml"):
        shutil.copy(f"{both}{suffix}", tmp_path)
    assert compare(tmp_path / "small") == 2
    assert "no engine runs it" in capsys.readouterr().err


def test_synthetic_clips_have_one_and_two_persons(both: Path) -> None:
    predictor = Predictor.load(f"{both}.onnx", engine="onnxruntime", cpu_threads=1)
    clips = compare_engines.clips_for(predictor, None, 4)
    assert clips.shape == (4, 3, 16, 25, 2)
    assert clips.any(axis=(1, 2, 3)).tolist() == [[True, False], [True, True]] * 2
    assert clips.any(axis=(1, 3, 4)).sum(axis=1).tolist() == [4] * 4, "16 * 80 / 300 frames"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none"], "none: no such model; allowed: one of none.pdmodel, none.json, none.onnx"),
        (["none.v2.onnx"], "allowed: one of none.v2.pdmodel"),
        (["none", "--clips", "0"], "--clips is 0; allowed: 1 to"),
        (["{both}", "--data_file", "none.npy"], "none.npy: no such file"),
    ],
)
def test_user_errors_are_one_line(both: Path, argv: list[str], message: str, capsys) -> None:
    assert compare(*(part.format(both=both) for part in argv)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
