"""The benchmarks run and print the expected rows."""

from __future__ import annotations

import re
from pathlib import Path
from subprocess import CompletedProcess

import paddle
import pytest

from deploy.engines.engine import CPU_ENGINES, ENGINES
from model.conv import Conv2D
from tests.processes import ROOT, run_python

SMALL = "stem_channel: 8, block_args: [[16, 1, 0], [16, 1, 0], [16, 2, 1]]"


def bench(name: str, *options: str) -> CompletedProcess[str]:
    return run_python(f"benchmarks/{name}.py", *options)


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("benchmarks/bench_*.py")))
def test_help(name: str) -> None:
    done = bench(name, "--help")
    assert done.returncode == 0 and "python benchmarks/" in done.stdout, done.stderr


def test_feeder() -> None:
    done = bench("bench_feeder", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^  (\S.*?)  +([\d.e+]+) /s ", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["without the check", "with the check"]
    assert all(float(rate) > 0 for _, rate in rows)


@pytest.mark.slow
def test_startup() -> None:
    done = bench("bench_startup", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^  (\S.*?)  +([\d.]+) s \(", done.stdout, re.MULTILINE))
    engines = ("auto", *CPU_ENGINES[".pdmodel"])
    commands = ["main.py --help", "infer.py --help", "export.py --help", "import paddle"]
    assert list(rows) == [*commands, *(f"infer.py, one clip, {name}" for name in engines)]


@pytest.mark.slow
@pytest.mark.usefixtures("converter")
def test_inference(tmp_path: Path) -> None:
    """Export verifies every engine; the benchmark itself verifies the port's form."""
    small = f"base: 9001\ndataset: ntu-xsub\nmodel_args: {{{SMALL}}}\n"
    (tmp_path / "small.yaml").write_text(small)
    argv = ["-c", str(tmp_path / "small.yaml"), "--batches", "1", "16", "--rounds", "1", "--port"]
    done = bench("bench_inference", *argv, "--growth", str(tmp_path / "growth.png"))
    assert done.returncode == 0, done.stderr
    row = r"^  (\S.*?)  +[\d.e+]+ /s .* ([\d.]+) x$"
    cases = re.split(r"^(?=\S.*\(clips/s\)$)", done.stdout, flags=re.MULTILINE)[1:]
    single, port = ENGINES[1:], "public port's form, paddle"
    quick = [name for name in single if name != "onednn"]
    rows = [[name for name, _ in re.findall(row, case, re.MULTILINE)] for case in cases]
    assert rows == [list(single), [port, *quick], [port, *quick]] * 2 + [quick] * (5 + 4 + 3)
    assert re.search(r"floor of [\d.]+ ms", done.stdout)
    assert done.stdout.count("times the floor") == 6
    assert done.stdout.count("all 300 frames recorded: nothing truncated") == 2
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_memory() -> None:
    settings = ["dataset=ntu-xsub", f"model_args={{{SMALL}}}"]
    argv = ["-c", "9001", "--engines", "openvino", "--clips", "20", "--set", *settings]
    done = bench("bench_memory", *argv)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^  (\S+)((?: +\d+){11})$", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["openvino"]


def test_user_errors_of_a_subprocess_are_passed_on() -> None:
    done = bench("bench_memory", "-c", "9001", "--clips", "1", "--set", "nonsense=1")
    assert done.returncode == 2 and "nonsense" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("converter")
def test_streaming() -> None:
    argv = ["--only", "RT-ST-GCN", "--rounds", "1", "--steps", "3", "--streams", "2"]
    done = bench("bench_streaming", *argv, "--endurance", "40")
    assert done.returncode == 0, done.stderr
    row = r"^RT-ST-GCN, (\w+), one thread: a step of 1 frames [\d.]+ ms .*; state 1.73 MB a person$"
    assert set(re.findall(row, done.stdout, re.MULTILINE)) >= {"openvino", "onnxruntime"}
    assert len(re.findall(r"2 streams, .* up to \d+ streams$", done.stdout, re.MULTILINE)) == 4
    assert "of 40 frames" in done.stdout


def test_multiply_adds_are_counted() -> None:
    """On a network whose multiply-adds are known."""
    from benchmarks.common import multiply_adds

    class Network(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Conv2D(6, 8, (5, 1), stride=(2, 1), padding=(2, 0), groups=2)

        def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
            x = clips.transpose([0, 2, 3, 1])  # (P, C, T, V)
            return paddle.matmul(self.conv(x), paddle.ones([25, 7]))

    convolution = 8 * 10 * 25 * (6 // 2 * 5)  # output size, products per output
    assert multiply_adds(Network(), [1, 25, 6, 20]) == convolution + 8 * 10 * 7 * 25


@pytest.mark.parametrize("name", ["bench_startup", "bench_inference"])
def test_nonsense_is_refused(name: str) -> None:
    done = bench(name, "--rounds", "0")
    assert done.returncode == 2 and "--rounds is 0; allowed: 1 or more" in done.stderr
