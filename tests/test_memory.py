"""The memory benchmark runs, and a predictor's memory does not grow with the number of clips."""

from __future__ import annotations

import re

import pytest

from tests.processes import run_python

BENCHMARK = "benchmarks/bench_memory.py"
SMALL = [
    *("-c", "9001", "--set", "dataset_args.ntu.num_frame=64", "model_args.stem_channel=8"),
    "model_args.block_args=[[16,1,0],[16,1,0],[16,2,1]]",
]


@pytest.mark.slow
def test_memory_does_not_grow() -> None:
    """A clip of 64 frames takes 38 KB, its features 0.1 MB: keeping 400 clips would take 55 MB."""
    done = run_python(BENCHMARK, *SMALL, "--clips", "800", "--engines", "paddle")
    assert done.returncode == 0, done.stderr
    (row,) = re.findall(r"^  paddle +((?: +\d+){11})$", done.stdout, re.MULTILINE)
    numbers = [int(number) for number in row.split()]
    assert 50 < numbers[0] < 5000 and numbers[-1] - numbers[5] < 15


def test_a_wrong_number_is_refused() -> None:
    done = run_python(BENCHMARK, "--clips", "0")
    assert done.returncode == 2 and "--clips is 0; allowed: 1 or more" in done.stderr
