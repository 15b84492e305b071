"""The first run of a model: in a process of its own, once, within limits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.engines import probe
from deploy.engines.engine import AUTO, CPU_ENGINES, open_engine
from deploy.engines.params_check import check_params
from deploy.engines.probe import probe_once
from errors import UserError
from tests.processes import ROOT


@pytest.fixture
def model(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a model on a machine that does not know it."""
    for suffix in (".pdmodel", ".pdiparams", ".meta.yaml"):
        shutil.copy(models / f"whole/small{suffix}", tmp_path / f"m{suffix}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "m.pdmodel"


def calls_of(monkeypatch: pytest.MonkeyPatch, code: int = 0) -> list[str]:
    """The engines that are probed from here on, in processes that end with a code."""
    calls: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command[-3])
        return subprocess.CompletedProcess(command, code, b"", b"")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


@pytest.mark.parametrize("engine", [AUTO, *CPU_ENGINES[".pdmodel"]])
def test_an_exported_model_is_known(
    models: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(monkeypatch)
    open_engine(models / "whole/small.pdmodel", None, engine, 1)
    assert calls == []


def test_another_model_is_run_once_for_each_engine(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(monkeypatch)
    for engine in ("openvino", "openvino", "paddle", "openvino", "paddle"):
        open_engine(model, None, engine, 1)
    assert calls == ["openvino", "paddle"]
    for suffix in (".pdmodel", ".pdiparams"):  # known by its content
        shutil.copy(model.with_suffix(suffix), model.parent / f"copy{suffix}")
    open_engine(model.parent / "copy.pdmodel", None, "openvino", 1)
    assert len(calls) == 2
    content = bytearray((model.parent / "copy.pdiparams").read_bytes())
    content[-1] ^= 1
    (model.parent / "copy.pdiparams").write_bytes(content)
    open_engine(model.parent / "copy.pdmodel", None, "openvino", 1)
    assert calls == ["openvino", "paddle", "openvino"]


def test_a_model_that_ends_its_process_stays_unknown(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(monkeypatch, code=-11)
    for _ in range(2):
        with pytest.raises(UserError, match="for engine openvino: .* ended with code -11"):
            open_engine(model, None, "openvino", 1)
    assert len(calls) == 2


def test_without_a_cache_every_start_is_a_first_one(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "user_cache", lambda name: None)
    calls = calls_of(monkeypatch)
    for _ in range(2):
        open_engine(model, None, "openvino", 1)
    assert len(calls) == 2


def test_marks_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "MAX_MARKS", 3)
    for number in range(5):
        (tmp_path / "m").write_text(str(number))
        probe.mark_as_known(tmp_path / "m", tmp_path / "none", ["paddle"])
    assert len(list((tmp_path / "skeleton-action/probed").iterdir())) == 3


def test_the_real_process(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_engine(model, None, "openvino", 1)
    monkeypatch.setattr(probe, "SECONDS", 0.01)
    with pytest.raises(UserError, match="m.pdmodel: no answer within 0 s; damaged?"):
        open_engine(model, None, "paddle", 1)
    killed = model.parent / "python"
    killed.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    monkeypatch.setattr(probe, "SECONDS", 60.0)
    with pytest.raises(UserError, match="for engine paddle: .* ended with code -11"):
        open_engine(model, None, "paddle", 1)


def test_a_damaged_program_is_one_line(model: Path) -> None:
    model.write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="m.pdmodel: not a static model of Paddle"):
        probe_once(model, model.with_suffix(".pdiparams"), "paddle", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limits")
def test_the_memory_is_limited() -> None:
    code = (
        "import os, numpy as np\n"
        "from deploy.engines.probe_process import limit_process\n"
        "limit_process(os.getppid(), 2**28)\n"
        "np.ones(2**24, np.uint8)\n"
        "np.ones(2**30, np.uint8)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "MemoryError" in done.stderr and "line 5" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_the_process_ends_with_its_parent() -> None:
    child = (
        "import os, sys, time\n"
        "from deploy.engines.probe_process import limit_process\n"
        "limit_process(os.getppid(), 2**33)\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}], check=False)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.kill()
        for _ in range(100):
            if not os.path.exists(f"/proc/{number}"):
                break
            if Path(f"/proc/{number}/stat").read_text().split()[2] == "Z":  # nobody waits for it
                break
            time.sleep(0.05)
        else:
            pytest.fail("it survived its parent")


def _descriptions(content: bytes) -> list[int]:
    """Where the descriptions of the tensors begin."""
    return [at for at in range(len(content) - 2) if content[at : at + 2] == b"\x08\x05"]


@pytest.mark.parametrize("kind", [".pdmodel", ".json"])
def test_weights_are_compared_with_the_program(kind: str, model: Path, models: Path) -> None:
    import export as export_cli
    from tests.small_models import SET

    params = model.with_suffix(".pdiparams")
    if kind == ".json":
        argv = ["-c", "9001", "-pp", str(models / "small.pdparams"), *SET]
        target = model.parent / "json"
        assert export_cli.main([*argv, "--save_dir", str(target), "--format", "json"]) == 0
        model, params = target / "small.json", target / "small.pdiparams"
    check_params(model, params)
    whole = params.read_bytes()
    first = _descriptions(whole)[0]  # 08 05 (float32) 10 <size of the axis>
    changes = {
        "cut": whole[:-1],
        "empty": b"",
        "longer": whole + b"0",
        "twice": whole * 2,
        "version": b"\1" + whole[1:],
        "levels": whole[:4] + b"\1" + whole[5:],
        "length": whole[:16] + b"\xff\xff\xff\x7f" + whole[20:],
        "negative length": whole[:16] + b"\xff" * 4 + whole[20:],
        "type": whole[:first] + b"\x08\x06" + whole[first + 2 :],
        "unknown type": whole[:first] + b"\x08\x63" + whole[first + 2 :],
        "shape": whole[: first + 3] + bytes([whole[first + 3] ^ 1]) + whole[first + 4 :],
    }
    for what, content in changes.items():
        assert content != whole, what
        params.write_bytes(content)
        with pytest.raises(UserError, match="small.pdiparams|m.pdiparams"):
            check_params(model, params)
