"""Faster forms of operations in training: values and gradients equal those of the plain forms."""

from __future__ import annotations

from collections.abc import Iterator
from subprocess import CompletedProcess

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import Tensor, nn
from paddle.base import core

from model import threads
from model.conv import Conv2D, conv_then_norm
from model.layers import Swish, mean_over_frames
from tests.processes import run_python


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = threads._num_threads()
    monkeypatch.setattr(threads, "_num_threads", lambda: 3)
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()
    core.set_num_threads(before)


def value_and_gradients(form, *inputs: Tensor) -> list[np.ndarray]:
    """The output of `form`, and the gradients of all inputs."""
    for tensor in inputs:
        tensor.stop_gradient = False
        tensor.clear_grad()
    y = form(*inputs)
    (y * paddle.arange(y.size, dtype="float32").reshape(y.shape).sin()).sum().backward()
    return [y.numpy(), *(tensor.grad.numpy() for tensor in inputs)]


@pytest.mark.parametrize("persons", [1, 2, 7])
def test_persons_split_over_threads(three_threads: None, persons: int) -> None:
    paddle.seed(0)
    x, weight = paddle.randn([persons, 4, 11, 5]), paddle.randn([6, 4, 5, 1])
    calls = []

    def work(x: Tensor, weight: Tensor) -> Tensor:
        calls.append(x.shape[0])
        return F.conv2d(F.relu(x), weight, stride=(2, 1), padding=(2, 0))

    shared = value_and_gradients(lambda *t: threads.over_persons(work, *t), x, weight)
    assert sorted(calls) == {1: [1], 2: [1, 1], 7: [2, 2, 3]}[persons]
    for got, expected in zip(shared, value_and_gradients(work, x, weight)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_no_threads_without_gradients(three_threads: None) -> None:
    calls = []
    x = paddle.ones([4, 1])
    threads.over_persons(lambda x: calls.append(x.shape[0]) or x, x)
    x.stop_gradient = False
    with paddle.no_grad():
        threads.over_persons(lambda x: calls.append(x.shape[0]) or x, x)
    assert calls == [4, 4]


def test_an_error_of_a_thread_reaches_the_caller(three_threads: None) -> None:
    x = paddle.ones([4, 1])
    x.stop_gradient = False
    with pytest.raises(ZeroDivisionError):
        threads.over_persons(lambda x: x * (1 / 0), x)


def test_a_bias_before_batch_norm_changes_only_the_running_mean() -> None:
    paddle.seed(0)
    conv, plain_norm, norm = Conv2D(3, 4, 1), nn.BatchNorm2D(4), nn.BatchNorm2D(4)
    conv.bias.set_value(paddle.to_tensor([5.0, -3.0, 0.5, 100.0]))
    x = paddle.randn([2, 3, 6, 5])
    inputs = (x, conv.weight)
    for _ in range(2):
        expected = value_and_gradients(lambda x, w: plain_norm(conv(x)), *inputs)
        got = value_and_gradients(lambda x, w: conv_then_norm(x, conv, norm), *inputs)
    for one, other in zip(got, expected):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm._mean.numpy(), plain_norm._mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(norm._variance.numpy(), plain_norm._variance.numpy(), rtol=1e-3)
    conv.clear_gradients()
    conv_then_norm(x, conv, norm).sum().backward()
    assert conv.bias.grad.numpy().tolist() == [0.0] * 4  # not None, for weight decay
    norm.eval()
    np.testing.assert_array_equal(conv_then_norm(x, conv, norm).numpy(), norm(conv(x)).numpy())


@pytest.mark.parametrize("lowest", [-79.0, -200.0])
def test_both_forms_of_swish(lowest: float) -> None:
    x = paddle.to_tensor([lowest, -3.0, 0.0, 4.0])
    for got, expected in zip(value_and_gradients(Swish(), x), value_and_gradients(F.swish, x)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_both_forms_of_the_mean_over_frames() -> None:
    x = paddle.randn([2, 3, 7, 5])
    forms = [lambda x, t=t: mean_over_frames(x, t) for t in (True, False)]
    for got, expected in zip(value_and_gradients(forms[0], x), value_and_gradients(forms[1], x)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def bench(*options: str) -> CompletedProcess[str]:
    return run_python("benchmarks/bench_training.py", *options, environ={"OMP_NUM_THREADS": "1"})


def test_the_benchmark_refuses_a_wrong_number() -> None:
    done = bench("--frames", "0")
    assert done.returncode == 2 and "--frames" in done.stderr and "1 or more" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("network", ["ST-GCN", "EfficientGCN-B0"])
def test_the_training_benchmark_runs(network: str) -> None:
    """The benchmark itself compares the logits of both implementations."""
    small = ["--batch", "1", "--frames", "8", "--persons", "1", "--steps", "1", "--rounds", "1"]
    done = bench("--only", network, *small)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "peak" in line]
    assert [row.split("  ")[1] for row in rows] == [
        "ours",
        "ours, no CPU set-up",
        "plain Paddle, no CPU set-up",
    ]
