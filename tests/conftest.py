"""Settings that count only before Paddle is imported, and fixtures that several tests share.

Nothing here imports Paddle outside the fixtures: tests of readers, data and configurations start
without it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import utils  # noqa: E402 - the line above makes it importable

utils.prepare_environment()
_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
os.environ.setdefault("SKELETON_CACHE", f"{_home}/skeleton-action/pose")  # fetched once
_cache = tempfile.TemporaryDirectory()  # for compiled programs, instead of the user's folder
os.environ["XDG_CACHE_HOME"] = _cache.name


@pytest.fixture(scope="session")
def converter() -> None:
    """Skips what exports .onnx files where that cannot be done."""
    if importlib.util.find_spec("paddle2onnx") is None:
        pytest.skip("Paddle2ONNX has no release for Python 3.13")


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder with `samples/` and `golden/`: $SKELETON_SAMPLES, or `../shared` beside the
    checkout. Without it the test is skipped, or fails if $SKELETON_REQUIRE_SAMPLES is 1."""
    folder = Path(os.environ.get("SKELETON_SAMPLES", ROOT.parent / "shared"))
    if not (folder / "samples").is_dir():
        reason = f"real samples not found in {folder}; set SKELETON_SAMPLES"
        if os.environ.get("SKELETON_REQUIRE_SAMPLES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root folder of generated data: 48 synthetic clips of 4 subjects, original and transformed."""
    import configs
    import generator
    from dataset.synthetic.recordings import write_recordings

    folder = tmp_path_factory.mktemp("tiny")
    write_recordings(folder / "recordings", subjects=(1, 2, 3, 4), cameras=(2,))
    for transform in (False, True):
        keys = {
            "dataset_args.ntu.root_folder": str(folder / "npy"),
            "dataset_args.ntu.synthetic_path": str(folder / "recordings"),
            "dataset_args.ntu.transform": transform,
        }
        generator.generate(configs.load("9001", keys), workers=1, progress=False)
    return folder / "npy"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static models `<name>/small.pdmodel` of a small network: whole, person, fixed and feature
    (tests/small_models.py)."""
    from tests.small_models import export_small

    folder = tmp_path_factory.mktemp("models")
    export_small(folder)
    return folder


@pytest.fixture(scope="session")
def small_run(tiny_data: Path) -> Callable[[Path], list[str]]:
    """work_dir -> --set arguments of a network and a run so small that an epoch takes a second."""

    def keys(work_dir: Path) -> list[str]:
        return [
            *(
                "--set",
                f"dataset_args.ntu.root_folder={tiny_data}",
                "dataset_args.ntu.num_frame=16",
            ),
            *("model_args.stem_channel=8", "model_args.block_args=[[16,1,0],[16,1,0],[16,2,1]]"),
            *("scheduler_args.cosine.max_epoch=4", "scheduler_args.cosine.warm_up=1"),
            *("dataset_args.ntu.train_batch_size=8", f"work_dir={work_dir}"),
        ]

    return keys


@pytest.fixture
def tiny_keys(small_run: Callable[[Path], list[str]], tmp_path: Path) -> list[str]:
    """`small_run` in the folder `work` of the test."""
    return small_run(tmp_path / "work")
