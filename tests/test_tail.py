"""A clip truncated to its real frames and the network's margin has the logits of the whole clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import paddle
import pytest
from networks import SMALL, efficientgcn, randomise, rt_stgcn, stgcn

from dataset.pipeline import ClipPipeline
from dataset.skeletons import skeleton
from deploy.clip_input import ClipInput, changing_frames
from model.tail import Tail

FRAMES = 96
EFFICIENTGCN = [{"att_type": name} for name in ("stja", "pa", "ca", "fa", "ja", "none")]
EFFICIENTGCN += [{"layer_type": name} for name in ("Basic", "Bottleneck", "Sep")]
EFFICIENTGCN += [{"kernel_size": (3, 2)}, {"fusion_stage": 0}, {"fusion_stage": 3}]


def small_stgcn(kernel_size: int = 5) -> paddle.nn.Layer:
    blocks = ((8, 1), (16, 2), (16, 1), (16, 2))
    return stgcn(num_class=12, channels=18, kernel_size=kernel_size, block_args=blocks)


def small_rt_stgcn(kernel_size: int) -> paddle.nn.Layer:
    blocks = ((8, 1), (16, 2), (16, 1), (16, 2))
    return rt_stgcn(num_class=12, channels=18, kernel_size=kernel_size, block_args=blocks)


def clip_of(real: int) -> np.ndarray:
    """(2*V, 18, T): random frames, then one random frame repeated."""
    clip = np.random.RandomState(real).standard_normal((50, 18, FRAMES)).astype(np.float32)
    clip[..., real:] = clip[..., -1:]
    return clip


def logits(network: paddle.nn.Layer, clip: np.ndarray, frames: int = FRAMES) -> np.ndarray:
    cut = paddle.full([1, 1, 1, 1], 1 - frames / FRAMES) if frames < FRAMES else None
    with paddle.no_grad():
        return network(paddle.to_tensor(clip[None, ..., :frames]), cut).numpy()[0]


def ready(network: paddle.nn.Layer) -> paddle.nn.Layer:
    randomise(network)
    network.eval()
    return network


@pytest.mark.parametrize("changes", EFFICIENTGCN, ids=str)
def test_every_length_of_efficientgcn(changes: dict[str, Any]) -> None:
    check_every_length(ready(efficientgcn(branches=3, **{**SMALL, **changes})))


@pytest.mark.parametrize("kernel_size", [3, 9])
def test_every_length_of_stgcn(kernel_size: int) -> None:
    check_every_length(ready(small_stgcn(kernel_size)))


@pytest.mark.parametrize("kernel_size", [3, 8])
def test_every_length_of_rt_stgcn(kernel_size: int) -> None:
    check_every_length(ready(small_rt_stgcn(kernel_size)))


def check_every_length(network: paddle.nn.Layer) -> None:
    """From no real frame to no padding: exact at the margin and one stride above, wrong at half."""
    margin, stride = network.geometry.tail_margin, network.geometry.stride
    wrong = 0.0
    for real in (0, 1, 2, 3, 20, 41, 58, 75, FRAMES - 1, FRAMES):
        clip = clip_of(real)
        whole = logits(network, clip)
        scale = np.abs(whole).max()
        shortest = -(-real // stride) * stride + margin
        for frames in (shortest, shortest + stride):
            got = logits(network, clip, min(frames, FRAMES))
            np.testing.assert_allclose(got, whole, atol=1e-5 * scale, err_msg=f"{real}, {frames}")
        if real == 41:
            short = logits(network, clip, shortest - margin // (2 * stride) * stride)
            wrong = float(np.abs(short - whole).max() / scale)
    assert wrong > 1e-4


@pytest.mark.parametrize("name", ["EfficientGCN", "ST-GCN", "RT-ST-GCN"])
def test_the_margin_is_the_smallest(name: str) -> None:
    """One stride less is wrong. Basic layers: in depthwise ones, outer frames weigh little, and so
    do they in sums of many taps."""
    networks = {
        "EfficientGCN": lambda: efficientgcn(branches=3, **{**SMALL, "layer_type": "Basic"}),
        "ST-GCN": small_stgcn,
        "RT-ST-GCN": lambda: small_rt_stgcn(kernel_size=2),
    }
    network = ready(networks[name]())
    margin, stride = network.geometry.tail_margin, network.geometry.stride
    clip = clip_of(40)
    whole, short = logits(network, clip), logits(network, clip, 40 + margin - stride)
    assert np.abs(short - whole).max() > 1e-4 * np.abs(whole).max()


def test_published_margins() -> None:
    """By hand, for each mean: the frames at both ends of the tail that kernel sizes of 5
    (EfficientGCN-B0) or 9 (ST-GCN) change, one representative frame, and the total stride of 4."""
    for network, margin in ((efficientgcn(), 32), (stgcn(), 156)):
        assert (network.geometry.tail_margin, network.geometry.stride) == (margin, 4)


def test_mean_weights_the_representative_frame() -> None:
    x = np.arange(2 * 6, dtype=np.float32).reshape(1, 2, 6, 1)
    whole = np.concatenate([x[:, :, :4], x[:, :, 3:4], x[:, :, 3:4], x[:, :, 4:]], axis=2)
    tail = Tail(paddle.full([1, 1, 1, 1], 2 / 8), after=2)
    mean = tail.mean(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(mean, whole.mean(axis=2, keepdims=True), rtol=1e-6)


def test_frames_needed() -> None:
    """Real frames up to a multiple of the stride, the margin, up to a multiple of the step."""
    ntu = ClipInput(skeleton("ntu-25"), ClipPipeline("JVB", 300), 2, tail_margin=32, tail_stride=4)
    no_margin = replace(ntu, tail_margin=0, tail_stride=1)
    whole = replace(ntu, tail_margin=0, tail_stride=0)
    clip = np.zeros((3, 300, 25, 2), np.float32)
    assert ntu.frames_needed(clip, 1) == 32
    clip[0, 81, 3, 1] = 1.0
    assert ntu.frames_needed(clip, 1) == 84 + 32
    assert ntu.frames_needed(clip, 16) == 128
    assert no_margin.frames_needed(clip, 1) == 82 + 2, "velocity looks two frames ahead"
    assert whole.frames_needed(clip, 16) == 300, "a model that takes whole clips"
    clip[0, 290:] = 1.0
    assert ntu.frames_needed(clip, 16) == 300
    frozen = np.full((3, 300, 25, 2), 0.5, np.float32)
    assert ntu.frames_needed(frozen, 1) == 32, "a tail need not be zero, only constant"


def test_a_known_length_replaces_the_search() -> None:
    """The same frames where a person leaves early, and where the last frames are empty."""
    clip = np.zeros((3, 300, 25, 2), np.float32)
    assert changing_frames(clip, 80) == changing_frames(clip, 0) == changing_frames(clip, None) == 0
    clip[:, :80, :, 0], clip[:, :41, :, 1] = 1.0, 2.0
    for part, frames in ((clip, 80), (clip[..., :1], 80), (clip[..., 1:], 41)):
        for length in (None, 80, 85, 300):
            assert changing_frames(part, length) == frames
    clip[:] = 1.0
    assert changing_frames(clip, 300) == 300 and changing_frames(clip, None) == 0
