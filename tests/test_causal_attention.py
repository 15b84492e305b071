"""Causal attention: its values, what may depend on what, its split for streams, and its export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import Tensor

import configs
from dataset.protocols import data_spec
from deploy.exporting.contracts import ExportOptions
from deploy.exporting.export import static_meta
from deploy.meta import StaticMeta, read_meta
from model.attention import MeanGate
from model.efficientgcn import EfficientGCN
from model.layers import cumulative_mean
from tests.networks import SMALL, efficientgcn, exported, network_of, randomise, score_map_of

NAMES = ("stja", "pa", "ca", "ja")
CLIPS = {  # of a configuration whose clips are longer than the margin of truncated clips
    "dataset_args.ntu.num_frame": 64,
    "model_args.stem_channel": 8,
    "model_args.block_args": [[16, 1, 0], [16, 1, 0], [16, 2, 1]],
}


def network(att_type: str) -> EfficientGCN:
    small = efficientgcn(branches=1, persons=1, **{**SMALL, "att_type": att_type})
    randomise(small)
    small.eval()
    return small


def gate(att_type: str) -> MeanGate:
    """A layer on 16 channels and 25 joints, in evaluation mode; for each name the same weights."""
    return getattr(network(att_type).main_stream, "block-0_att").att


def random(*shape: int) -> np.ndarray:
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def run(layer: paddle.nn.Layer, x: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return layer(paddle.to_tensor(x)).numpy()


def test_cumulative_mean_and_its_gradient() -> None:
    x, weight = random(2, 3, 7, 5), random(2, 3, 7, 5)[::-1].copy()
    tensor = paddle.to_tensor(x, stop_gradient=False)
    mean = cumulative_mean(tensor)
    frames = [x[:, :, : t + 1].mean(axis=2) for t in range(7)]
    np.testing.assert_allclose(mean.numpy(), np.stack(frames, axis=2), atol=1e-6)
    (mean * paddle.to_tensor(weight)).sum().backward()
    shares = [(weight[:, :, t:] / np.arange(t + 1, 8)[:, None]).sum(axis=2) for t in range(7)]
    np.testing.assert_allclose(tensor.grad.numpy(), np.stack(shares, axis=2), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_each_frame_equals_the_usual_attention_on_the_frames_so_far(name: str) -> None:
    x, causal, usual = random(2, 16, 9, 25), gate(f"{name}-causal"), gate(name)
    got = run(causal, x)
    for t in range(9):
        expected = run(usual, x[:, :, : t + 1])[:, :, -1]
        np.testing.assert_allclose(got[:, :, t], expected, atol=1e-5, err_msg=f"frame {t}")
    assert np.abs(got[:, :, :-1] - run(usual, x)[:, :, :-1]).max() > 1e-3, "the same at any frame"


@pytest.mark.parametrize("name", NAMES)
def test_frames_one_by_one_with_a_running_mean(name: str) -> None:
    """What a form for streams does: `gated` mixes no frames."""
    x, layer = random(2, 16, 9, 25), gate(f"{name}-causal")
    whole, mean = run(layer, x), np.zeros((2, 16, 1, 25), np.float32)
    for t in range(9):
        frame = x[:, :, t : t + 1]
        mean += (frame - mean) / (t + 1)
        with paddle.no_grad():
            got = layer.gated(paddle.to_tensor(frame), paddle.to_tensor(mean)).numpy()
        np.testing.assert_allclose(got[:, :, 0], whole[:, :, t], atol=1e-5, err_msg=f"frame {t}")


@pytest.mark.parametrize("name", NAMES)
def test_no_output_depends_on_later_frames(name: str) -> None:
    """Beyond the delay of the network's convolutions. The usual attention changes all of them."""
    clip, changed = random(1, 25, 6, 48), random(1, 25, 6, 48)
    changed[..., 30:] *= -3
    causal, usual = network(f"{name}-causal"), network(name)
    before = -(-(30 - causal.geometry.delay) // causal.geometry.stride)  # outputs of frames 0 to 29
    assert 0 < before < 24
    for tested, first_change in ((causal, before), (usual, 0)):
        differs = score_map_of(tested, clip) != score_map_of(tested, changed)  # (1, 60, T', V)
        assert np.flatnonzero(differs.any(axis=(0, 1, 3)))[0] == first_change


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_usual_attention(name: str) -> None:
    causal, usual = network(f"{name}-causal"), network(name)
    shapes = [{k: list(v.shape) for k, v in n.state_dict().items()} for n in (causal, usual)]
    assert shapes[0] == shapes[1]
    assert usual.set_state_dict(causal.state_dict()) == ([], [])


@pytest.mark.parametrize("name", ["stja", "stja-causal"])
def test_stja_normalises_both_means_together_in_training(name: str) -> None:
    """The running mean covers the reduced means over joints and over frames, each value once; the
    rest of the training form computes what the evaluation does."""
    x, layer = random(2, 16, 9, 25), gate(name)
    conv, norm = layer.fcn[0], layer.fcn[1]
    expected = run(layer, x)
    layer.train()
    norm.eval()
    np.testing.assert_allclose(run(layer, x), expected, atol=1e-5)
    norm.train()
    over_frames = run(cumulative_mean, x) if layer.causal else x.mean(axis=2, keepdims=True)
    means = (x.mean(axis=3), over_frames.reshape(2, 16, -1))
    reduced = run(conv, np.concatenate(means, axis=2)[..., None])
    running = 0.9 * norm._mean.numpy() + 0.1 * reduced.mean(axis=(0, 2, 3))
    run(layer, x)
    np.testing.assert_allclose(norm._mean.numpy(), running, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_long_clip(name: str) -> None:
    small = network(f"{name}-causal")
    small.train()
    logits: Tensor = small(paddle.to_tensor(random(2, 25, 6, 128)))
    paddle.nn.functional.cross_entropy(logits, paddle.to_tensor([1, 2])).backward()
    for key, parameter in small.named_parameters():
        if not parameter.stop_gradient:
            assert np.isfinite(parameter.grad.numpy()).all(), key
    first = small.input_branches[0].stem_scn.conv.gcn.weight.grad.numpy()
    assert np.abs(first).max() > 0


def test_truncated_clips_are_refused() -> None:
    """A cut would be wrong: the same frames give other logits in a truncated clip."""
    clips, cut = paddle.to_tensor(random(1, 25, 6, 32)), paddle.full([1, 1, 1, 1], 0.5)
    usual, causal = network("stja"), network("stja-causal")
    assert usual.truncates and not causal.truncates
    usual(clips, cut)
    with pytest.raises(ValueError, match="only takes whole clips"):
        causal(clips, cut)


def meta_of(att_type: str) -> StaticMeta:
    config = configs.load("9001", {**CLIPS, "model_args.att_type": att_type})
    spec = data_spec(config.dataset, config.data.own_layout)
    return static_meta(network_of(config), config, spec, ExportOptions())


def test_static_models_take_whole_clips() -> None:
    """And they would be truncated if it were not for the attention."""
    assert meta_of("stja").tail_stride > 0
    for name in NAMES:
        meta = meta_of(f"{name}-causal")
        assert (meta.tail_margin, meta.tail_stride) == (0, 0)
        assert list(meta.inputs(25).values()) == [[-1, 50, 18, 64]]


def test_export_to_paddle(tmp_path: Path) -> None:
    """Export compares every engine with the network, and raises where one differs."""
    config = configs.load("9001", {**CLIPS, "model_args.att_type": "stja-causal"})
    program = exported(config, tmp_path)
    assert read_meta(program).tail_stride == 0


@pytest.mark.usefixtures("converter")
def test_export_to_onnx(tmp_path: Path) -> None:
    """With operators that compilers for accelerators have, and no other; export checks it."""
    config = configs.load("9001", {**CLIPS, "model_args.att_type": "stja-causal"})
    assert read_meta(exported(config, tmp_path, format="onnx")).tail_stride == 0
