"""RT-ST-GCN, offline: golden logits, its parts against NumPy, causality, folding, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import Tensor

import export as export_cli
from configs.model import RTSTGCNArgs
from deploy.exporting.graph_check import CHIP_OPERATORS, inspect_program
from model import rt_stgcn as module
from model.fold import fold_network
from model.network import Shape
from model.rt_stgcn import RTSTGCN, CausalSum, FrameNorm, RTSTGCNLayer, causal
from tests.networks import clip_tensor_of, num_trainable, randomise, rt_stgcn

BLOCKS = ((8, 1), (12, 2), (12, 1), (12, 3))  # residual connections of both kinds, three spacings
SMALL: dict[str, Any] = {"in_channel": 8, "block_args": BLOCKS, "kernel_size": 4, "num_class": 5}


def random_clips(n: int = 1, frames: int = 20, persons: int = 2) -> Tensor:
    x = np.random.RandomState(1).standard_normal((n, 3, frames, 25, persons))
    return clip_tensor_of(x.astype(np.float32))


def small(**changes: Any) -> RTSTGCN:
    network = rt_stgcn(**{**SMALL, **changes})
    randomise(network)
    network.eval()
    return network


def frame_logits(network: RTSTGCN, clips: Tensor) -> np.ndarray:
    with paddle.no_grad():
        return network.frame_logits(clips).numpy()


def test_golden_logits_of_every_frame(samples: Path) -> None:
    """Of the public code with all its taps at both spacings; its own adjacency is stored too. The
    parameters have the public names, so the rule of the golden arrays finds them in its order."""
    golden = np.load(samples / "golden/rtstgcn_ln_k9_fulltaps.npz")
    args = RTSTGCNArgs()
    layers = [(channel, causal(9, spacing)) for channel, spacing in args.block_args]
    network = RTSTGCN(Shape((3,), 1, 52), golden["A"], args.in_channel, layers, args.drop_prob)
    assert num_trainable(network) == 813_301
    names = {"norm_in.weight", "fcn_in.bias", "st_gcn.8.conv.weight", "st_gcn.0.edge_importance"}
    names |= {"st_gcn.0.bn_relu.0.bias", "st_gcn.3.residual.1.weight", "fcn_out.weight", "A"}
    assert names <= set(network.state_dict())
    randomise(network)
    network.eval()
    clip = np.random.RandomState(1).standard_normal((1, 3, 60, 25, 1)).astype(np.float32)
    scale = np.abs(golden["logits"]).max()
    for fold in (lambda network: None, fold_network):
        fold(network)
        got = frame_logits(network, clip_tensor_of(clip))
        np.testing.assert_allclose(got, golden["logits"], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("frames", [5, 30, 150])
@pytest.mark.parametrize("spacing", [1, 2])
@pytest.mark.parametrize("taps", [1, 3, 9, 69])
def test_every_form_of_the_sum_equals_a_loop(
    monkeypatch: pytest.MonkeyPatch, taps: int, spacing: int, frames: int
) -> None:
    """Exactly, on integers; clips are shorter and longer than the receptive field."""
    rng = np.random.RandomState(0)
    x = rng.randint(-50, 50, (2, 3, frames, 4)).astype(np.float32)
    weight = rng.randint(-5, 5, x.shape).astype(np.float32)
    expected, gradient = np.zeros_like(x), np.zeros_like(x)
    for t in range(frames):
        for source in range(t, max(-1, t - taps * spacing), -spacing):
            expected[:, :, t] += x[:, :, source]
            gradient[:, :, source] += weight[:, :, t]
    layer = CausalSum(3, causal(taps, spacing))

    def check() -> None:
        tensor = paddle.to_tensor(x, stop_gradient=False)
        y = layer(tensor)
        np.testing.assert_array_equal(y.numpy(), expected)
        (y * paddle.to_tensor(weight)).sum().backward()
        np.testing.assert_array_equal(tensor.grad.numpy(), gradient)

    monkeypatch.setattr(module, "FRAMES_PER_TAP", frames)
    check()
    monkeypatch.setattr(module, "LONGEST_BAND", frames - 1)
    monkeypatch.setattr(layer, "band", None)  # not called for longer clips, nor once folded
    check()
    layer.fold()
    check()


def test_both_forms_of_the_norm_divide_by_one_less_than_the_values() -> None:
    norm, rng = FrameNorm(2, 3), np.random.RandomState(0)
    weight, bias = (rng.standard_normal((2, 1, 3)).astype(np.float32) for _ in range(2))
    norm.weight.set_value(weight)
    norm.bias.set_value(bias)
    x = 3 + rng.standard_normal((4, 2, 5, 3)).astype(np.float32)
    x[0, :, 0] = 7.0  # no variance
    mean, variance = (
        f(axis=(1, 3), keepdims=True) for f in (x.mean, lambda **k: x.var(ddof=1, **k))
    )
    expected = (x - mean) / np.sqrt(variance + 1e-5) * weight + bias
    gradients = []
    for _ in range(2):
        tensor = paddle.to_tensor(x, stop_gradient=False)
        y = norm(tensor)
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-5)
        (y[1:] ** 3).sum().backward()
        gradients.append(tensor.grad.numpy())
        norm.fold()
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)
    biased = (x - mean) / np.sqrt(x.var(axis=(1, 3), keepdims=True) + 1e-5) * weight + bias
    assert np.abs(biased - expected).max() > 0.05


@pytest.mark.parametrize(
    ("out_channel", "spacing", "residual", "kind"),
    [(6, 1, True, "identity"), (6, 2, True, "conv"), (9, 1, True, "conv"), (6, 2, False, "none")],
)
def test_layer_equals_numpy(out_channel: int, spacing: int, residual: bool, kind: str) -> None:
    """y = relu(relu(norm(s)) + residual(x)); without a residual connection y = relu(norm(s))."""
    rng = np.random.RandomState(0)
    layer = RTSTGCNLayer(
        6, out_channel, (3, 5, 5), causal(3, spacing), 0.0, edge_importance=True, residual=residual
    )
    randomise(layer)
    x, graph = (rng.standard_normal(s).astype(np.float32) for s in ((2, 6, 11, 5), (3, 5, 5)))

    def norm(part: FrameNorm, y: np.ndarray) -> np.ndarray:
        y = y - y.mean(axis=(1, 3), keepdims=True)
        deviation = np.sqrt(y.var(axis=(1, 3), ddof=1, keepdims=True) + 1e-5)
        return y / deviation * part.weight.numpy() + part.bias.numpy()

    weight = layer.conv.weight.numpy().reshape(3, out_channel, 6)
    mixed = np.einsum("koc,pctv->pkotv", weight, x)
    mixed += layer.conv.bias.numpy().reshape(3, out_channel, 1, 1)
    g = np.einsum("pkotv,kvw->potw", mixed, graph * layer.edge_importance.numpy())
    summed = sum(
        np.pad(g, [(0, 0), (0, 0), (n, 0), (0, 0)])[:, :, :11] for n in (0, spacing, 2 * spacing)
    )
    y = np.maximum(norm(layer.bn_relu[0], summed), 0)
    if kind == "identity":
        y = np.maximum(y + x, 0)
    elif kind == "conv":
        assert layer.residual[0].bias is None
        shortcut = np.einsum("oc,pctv->potv", layer.residual[0].weight.numpy()[:, :, 0, 0], x)
        y = np.maximum(y + norm(layer.residual[1], shortcut), 0)
    tensors = paddle.to_tensor(x), paddle.to_tensor(graph)
    with paddle.no_grad():
        np.testing.assert_allclose(layer.graph(*tensors).numpy(), g, atol=1e-4)
        np.testing.assert_allclose(layer(*tensors).numpy(), y, atol=1e-4)


@pytest.mark.parametrize("folded", [False, True])
def test_frame_by_frame_from_the_parts_of_a_layer(folded: bool) -> None:
    """`stem`, `graph` and `combine` of single frames, with graph-convolved frames added by hand."""
    network, clips = small(persons=1), random_clips(persons=1, frames=30)
    expected = frame_logits(network, clips)  # (1, num_class, T)
    if folded:
        fold_network(network)
    kept: list[list[Tensor]] = [[] for _ in network.st_gcn]
    with paddle.no_grad():
        for t in range(30):
            x = network.stem(clips[..., t : t + 1].transpose([0, 2, 3, 1]))  # (1, C, 1, V)
            for layer, past in zip(network.st_gcn, kept):
                past.append(layer.graph(x, network.A))
                (timing,) = layer.timings
                x = layer.combine(sum(past[:: -timing.dilation][: timing.kernel]), x)
            got = network.head(x).mean(axis=3).numpy()[:, :, 0]
            np.testing.assert_allclose(got, expected[:, :, t], atol=1e-5, err_msg=str(t))


@pytest.mark.parametrize("frame", [0, 7, 19])
def test_no_frame_depends_on_later_ones(frame: int) -> None:
    network, clips = small(), random_clips()
    before = frame_logits(network, clips)
    assert before.shape == (2, 5, 20)  # persons, classes, frames
    changed = clips.numpy()
    changed[..., frame] *= -1.0
    after = frame_logits(network, paddle.to_tensor(changed))
    np.testing.assert_array_equal(after[..., :frame], before[..., :frame])
    assert (after[..., frame] != before[..., frame]).all()


def test_the_mean_over_frames_and_persons_is_the_logits() -> None:
    network, clips = small(), random_clips(n=3)
    by_frame = frame_logits(network, clips)  # (6, 5, T)
    with paddle.no_grad():
        logits, (score_map, _) = network(clips).numpy(), network.extract_feature(clips)
    np.testing.assert_allclose(score_map.numpy().mean(axis=3), by_frame, atol=1e-5)
    np.testing.assert_allclose(
        by_frame.mean(axis=2).reshape(3, 2, 5).mean(axis=1), logits, atol=1e-5
    )


VARIANTS: list[dict[str, Any]] = [{}, {"residual": False}, {"edge_importance": False}]
VARIANTS += [{"strategy": "uniform"}, {"strategy": "distance"}, {"kernel_size": 1}]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_variant_trains_and_folds(changes: dict[str, Any]) -> None:
    """A gradient on every parameter; folding keeps the logits and leaves constants alone."""
    network, clips = small(drop_prob=0.5, **changes), random_clips(n=3)
    before = network(clips).numpy()
    network.train()
    logits = network(clips)
    assert np.abs(logits.numpy() - before).max() > 1e-3, "dropout"
    paddle.nn.functional.cross_entropy(logits, paddle.to_tensor([1, 2, 3])).backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]
    network.eval()
    fold_network(network)
    folded = network(clips).numpy()
    np.testing.assert_allclose(folded, before, rtol=0, atol=1e-5 * np.abs(before).max())
    network.A.set_value(0 * network.A)
    np.testing.assert_array_equal(network(clips).numpy(), folded)
    assert not any("edge_importance" in name for name, _ in network.named_parameters())


def test_random_weights_are_those_of_torch() -> None:
    paddle.seed(0)
    network = rt_stgcn()
    for conv, channel in ((network.fcn_in, 3), (network.st_gcn[5].conv, 128)):
        for values in (conv.weight.numpy(), conv.bias.numpy()):
            assert 0.9 < np.abs(values).max() * np.sqrt(channel) <= 1.0
            assert values.std() * np.sqrt(3 * channel) == pytest.approx(1, abs=0.15)


TINY = ["--set", "model_args.block_args=[[8,1],[8,2]]", "model_args.kernel_size=3"]
TINY += ["dataset_args.keypoint.num_frame=32"]


@pytest.mark.parametrize("form", ["paddle", "onnx"])
def test_export(tmp_path: Path, form: str, request: pytest.FixtureRequest, capsys) -> None:
    """The export itself compares whole and truncated clips with the network on every engine."""
    if form == "onnx":
        request.getfixturevalue("converter")
    argv = ["-c", "4201", *TINY, "--format", form, "--save_dir", str(tmp_path)]
    assert export_cli.main(argv) == 0
    assert capsys.readouterr().out.count("Largest difference") >= 2
    (file,) = [path for path in tmp_path.iterdir() if path.suffix in (".pdmodel", ".onnx")]
    facts = inspect_program(file)
    assert facts.max_rank == 4 and not facts.problems
    if form == "onnx":
        assert {"Sqrt", "Div", "Slice"} <= set(facts.ops) <= CHIP_OPERATORS  # Slice: of the tail
