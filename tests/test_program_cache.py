"""Compiled programs in the user's cache: used where they are whole and belong to the same model."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13

from apps.video.weights import weights_folder
from deploy.engines import program_cache
from deploy.engines.program_cache import compiled
from errors import UserError
from safe_io import user_cache

SETTINGS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "skeleton-action" / "openvino"


def times(factor: float, identity: str = "") -> float:
    """What a model that multiplies by a factor gives for 1."""
    parameter = opset13.parameter([1], np.float32)
    product = opset13.multiply(parameter, opset13.constant(np.float32([factor])))
    model = openvino.Model([product], [parameter])
    program = compiled(openvino.Core(), model, identity or f"times {factor}", SETTINGS)
    return float(program(np.ones(1, np.float32))[0][0])


def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that compile or load, as they come."""
    calls: list[str] = []

    class Core(openvino.Core):
        def compile_model(self, *args: object) -> openvino.CompiledModel:
            calls.append("compile")
            return super().compile_model(*args)

        def import_model(self, *args: object) -> openvino.CompiledModel:
            calls.append("load")
            return super().import_model(*args)

    monkeypatch.setattr(openvino, "Core", Core)
    return calls


def test_the_second_start_loads_the_program(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = compilations(monkeypatch)
    assert [times(2), times(2), times(3)] == [2, 2, 3]
    assert calls == ["compile", "load", "compile"]
    assert len(list(cache.iterdir())) == 2


def test_a_program_of_another_model_is_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under this model's name, in a file that is whole."""
    times(2)
    own = next(cache.iterdir())
    times(3)
    other = next(file for file in cache.iterdir() if file != own)
    shutil.copy(other, own)
    calls = compilations(monkeypatch)
    assert [times(2), times(2)] == [2, 2]
    assert calls == ["compile", "load"]


def test_another_version_compiles_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(2)
    calls = compilations(monkeypatch)
    monkeypatch.setattr(openvino, "get_version", lambda: "another")
    assert times(2) == 2
    assert calls == ["compile"]


def test_no_changed_bit_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times(2)
    file = next(cache.iterdir())
    whole = file.read_bytes()
    rng = np.random.RandomState(0)
    calls = compilations(monkeypatch)
    for position in [0, 31, 32, len(whole) - 1, *rng.randint(0, len(whole), 36)]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randint(8)
        file.write_bytes(changed)
        assert times(2) == 2
    for content in (b"", whole[:20], whole[:32], whole[:-1], whole + b"0"):
        file.write_bytes(content)
        assert times(2) == 2
    assert calls == ["compile"] * 45
    assert file.read_bytes() != whole + b"0"  # written again


def test_the_oldest_above_the_limit_are_removed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_cache, "MAX_BLOBS", 3)
    for factor in range(2, 7):
        times(factor)
        newest = max(cache.iterdir(), key=os.path.getmtime)
        os.utime(newest, (factor, factor))
    assert sorted(os.path.getmtime(file) for file in cache.iterdir()) == [4, 5, 6]


def test_a_cache_that_others_can_write_is_not_used(cache: Path) -> None:
    assert user_cache("openvino") == cache
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    cache.chmod(0o770)
    assert user_cache("openvino") is None
    cache.chmod(0o700)
    cache.rename(cache.with_name("elsewhere"))
    cache.symlink_to(cache.with_name("elsewhere"))
    assert user_cache("openvino") is None
    assert times(2) == 2
    assert list(cache.iterdir()) == []


def test_a_cache_of_another_user_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_cache("openvino") == cache
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert user_cache("openvino") is None
    assert times(2) == 2


def test_a_file_in_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert user_cache("openvino") is None
    assert times(2) == 2


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SKELETON_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert user_cache("openvino") is None
    assert times(2) == 2
    with pytest.raises(UserError, match="set SKELETON_CACHE"):
        weights_folder()
