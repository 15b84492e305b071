"""A dilated convolution over time stays dilated in training, folding, export and cut tails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from networks import randomise, stgcn

from model.conv import Conv2D, conv_then_norm
from model.fold import fold_network
from model.layers import temporal_conv
from model.timing import Timing


def dilated(dilation: int = 3) -> Conv2D:
    paddle.seed(0)
    return Conv2D(4, 6, (5, 1), padding=(2 * dilation, 0), dilation=(dilation, 1))


def plain(conv: Conv2D, x: paddle.Tensor) -> np.ndarray:
    """By Paddle's own function, which takes the settings one by one."""
    y = F.conv2d(x, conv.weight, conv.bias, padding=[6, 0], dilation=[3, 1])
    return y.numpy()


def test_forward_and_gradient() -> None:
    conv, x = dilated(), paddle.randn([3, 4, 20, 5])
    x.stop_gradient = False
    np.testing.assert_allclose(conv(x).numpy(), plain(conv, x), atol=1e-5)
    conv(x).sum().backward()  # through the threads of model/threads.py
    got = x.grad.numpy()
    x.clear_grad()
    F.conv2d(x, conv.weight, conv.bias, padding=[6, 0], dilation=[3, 1]).sum().backward()
    np.testing.assert_allclose(got, x.grad.numpy(), atol=1e-5)


def test_training_step_with_batch_norm() -> None:
    conv, norm, x = dilated(), paddle.nn.BatchNorm2D(6), paddle.randn([3, 4, 20, 5])
    expected = paddle.nn.BatchNorm2D(6)(paddle.to_tensor(plain(conv, x))).numpy()
    np.testing.assert_allclose(conv_then_norm(x, conv, norm).numpy(), expected, atol=1e-5)


def test_folding() -> None:
    layer = paddle.nn.Sequential(dilated(), paddle.nn.BatchNorm2D(6))
    randomise(layer)
    layer.eval()
    x = paddle.randn([3, 4, 20, 5])
    expected = layer[1](paddle.to_tensor(plain(layer[0], x))).numpy()
    fold_network(layer)
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-5)


def dilated_stgcn() -> paddle.nn.Layer:
    """An ST-GCN whose second block looks 2 * 3 frames to each side."""
    blocks = ((8, 1), (8, 1), (8, 2))
    network = stgcn(num_class=12, persons=1, kernel_size=5, block_args=blocks)
    timing = Timing.centred(5, dilation=3)
    dilated_block = network.st_gcn_networks[1]
    dilated_block.timings, dilated_block.tcn[2] = (timing,), temporal_conv(8, 8, timing)
    randomise(network)
    network.eval()
    return network


def test_cut_tail() -> None:
    """2 + 6 + 2 frames at each side, in steps of 2: exact at the margin, wrong a stride below."""
    network = dilated_stgcn()
    margin, stride = network.geometry.tail_margin, network.geometry.stride
    assert (margin, stride) == (22, 2)
    clip = np.random.RandomState(0).standard_normal((1, 25, 3, 96)).astype(np.float32)
    clip[..., 40:] = clip[..., -1:]
    whole = network(paddle.to_tensor(clip)).numpy()
    for frames, right in ((40 + margin, True), (40 + margin - stride, False)):
        share = paddle.full([1, 1, 1, 1], 1 - frames / 96)
        short = network(paddle.to_tensor(clip[..., :frames]), share).numpy()
        assert (np.abs(short - whole).max() < 1e-5 * np.abs(whole).max()) == right


@pytest.mark.parametrize("engine", ["openvino", "paddle"])
def test_export(tmp_path: Path, engine: str) -> None:
    from deploy.engines.engine import open_engine

    network = dilated_stgcn()
    clip = np.random.RandomState(0).standard_normal((1, 25, 3, 64)).astype(np.float32)
    expected = network(paddle.to_tensor(clip)).numpy()
    fold_network(network)
    spec = [paddle.static.InputSpec([1, 25, 3, 64], "float32", "clips")]
    paddle.jit.save(network, str(tmp_path / "dilated"), spec)
    run = open_engine(tmp_path / "dilated.pdmodel", None, engine, 1).run
    np.testing.assert_allclose(
        run({"clips": clip})[0], expected, atol=1e-4 * np.abs(expected).max()
    )
