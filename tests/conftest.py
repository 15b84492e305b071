"""Process set-up before anything imports Paddle, and the fixtures that many tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import utils  # noqa: E402 - needs the line above

utils.prepare_process()


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder with `samples/` and `golden/`: $SKELETON_SAMPLES, or `../shared` beside the
    checkout. Tests that need it are skipped without, unless $SKELETON_REQUIRE_SAMPLES is 1."""
    folder = Path(os.environ.get("SKELETON_SAMPLES", ROOT.parent / "shared"))
    if not (folder / "samples").is_dir():
        reason = f"real samples not found in {folder}; set SKELETON_SAMPLES"
        if os.environ.get("SKELETON_REQUIRE_SAMPLES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
