"""Networks: golden logits, parameter counts, the 5-D form, every selectable part, folding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from configs.model import ATT_TYPES
from dataset.graph import adjacency
from dataset.skeletons import layout_names, skeleton
from model.build import rescale_blocks
from model.fold import fold_network
from model.graph_conv import graph_conv
from model.layers import ACTIVATIONS
from tests.networks import (
    SMALL,
    clip_tensor_of,
    efficientgcn,
    num_trainable,
    randomise,
    stgcn,
)
from training.checkpoint import load_checkpoint, load_weights, weights_of

GOLDEN = Path(__file__).parent / "golden"
NTU_25, OPENPOSE_18 = skeleton("ntu-25"), skeleton("openpose-18")


def random_clips(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def logits_of(network: paddle.nn.Layer, clips: paddle.Tensor) -> np.ndarray:
    network.eval()
    with paddle.no_grad():
        return network(clips).numpy()


def test_graph_conv_equals_the_5d_einsum() -> None:
    rng = np.random.RandomState(0)
    x, graph = rng.standard_normal((4, 5, 6, 25)), adjacency(NTU_25, "spatial")
    weight, bias = rng.standard_normal((3 * 7, 5)), rng.standard_normal(3 * 7)
    mixed = np.einsum("oc,nctv->notv", weight, x) + bias[:, None, None]
    expected = np.einsum("nkctv,kvw->nctw", mixed.reshape(4, 3, 7, 6, 25), graph)
    tensors = [paddle.to_tensor(a.astype(np.float32)) for a in (x, graph, weight, bias)]
    got = graph_conv(tensors[0], tensors[1], tensors[2].reshape([21, 5, 1, 1]), tensors[3])
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("file", "layout", "num_class"),
    [("stgcn_nturgbd", NTU_25, 60), ("stgcn_openpose", OPENPOSE_18, 400)],
)
def test_stgcn_equals_golden(file: str, layout, num_class: int) -> None:
    golden = np.load(GOLDEN / f"{file}.npz")
    network = stgcn(layout, num_class)
    randomise(network)
    clips = clip_tensor_of(random_clips(2, 3, 32, layout.num_joint, 2))
    np.testing.assert_allclose(logits_of(network, clips), golden["logits"], atol=1e-5)
    with paddle.no_grad():
        score_map, feature = network.extract_feature(clips)
    v = layout.num_joint
    first = (
        score_map.numpy().reshape(2, 2, num_class, 8, v)[0].transpose(1, 2, 3, 0)
    )  # (c, t, v, M)
    np.testing.assert_allclose(first[: len(golden["output0"])], golden["output0"], atol=1e-5)
    norm = np.linalg.norm(feature.numpy(), axis=1).reshape(2, 2, 8, v).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(norm, golden["feat_norm"], rtol=1e-4)


def test_stgcn_parameter_names_and_counts() -> None:
    assert num_trainable(stgcn()) == 3_098_832
    assert num_trainable(stgcn(OPENPOSE_18, 400)) == 3_177_140
    names = set(stgcn().state_dict())
    expected = {"A", "data_bn._mean", "st_gcn_networks.4.residual.1._variance", "fcn.bias"}
    expected |= {"edge_importance.9", "st_gcn_networks.0.gcn.conv.weight"}
    assert expected <= names and len(names) == 172 - 23  # without torch's num_batches_tracked


@pytest.mark.parametrize("layout", layout_names())
@pytest.mark.parametrize("strategy", ["uniform", "distance", "spatial"])
def test_stgcn_runs_any_layout_persons_channels_frames(layout: str, strategy: str) -> None:
    bones = skeleton(layout)
    network = stgcn(bones, 5, persons=3, channels=6, strategy=strategy)
    clips = clip_tensor_of(random_clips(2, 6, 13, bones.num_joint, 3))
    logits = logits_of(network, clips)
    assert logits.shape == (2, 5) and np.isfinite(logits).all()
    score_map, feature = network.extract_feature(clips)
    assert list(score_map.shape) == [6, 5, 4, bones.num_joint]  # ceil(ceil(13 / 2) / 2) frames
    assert list(feature.shape) == [6, 256, 4, bones.num_joint]


def test_stgcn_without_edge_importance_uses_the_graph_unweighted() -> None:
    with_ones, without = stgcn(num_class=5), stgcn(num_class=5, edge_importance=False)
    state = {k: v for k, v in with_ones.state_dict().items() if "edge_importance" not in k}
    assert without.set_state_dict(state) == ([], [])
    clips = clip_tensor_of(random_clips(1, 3, 16, 25, 2))
    np.testing.assert_allclose(logits_of(with_ones, clips), logits_of(without, clips), atol=1e-6)


def test_person_order_matters() -> None:
    """A clip tensor merged with V slow has the right shape and must give other logits."""
    network = stgcn(num_class=5)
    randomise(network)
    x = random_clips(1, 3, 16, 25, 2)
    right = logits_of(network, clip_tensor_of(x))
    v_major = x.transpose(0, 3, 4, 1, 2).reshape(1, 50, 3, 16)
    assert np.abs(right - logits_of(network, paddle.to_tensor(v_major))).max() > 1e-3
    swapped = logits_of(network, clip_tensor_of(x[..., ::-1].copy()))
    np.testing.assert_allclose(right, swapped, atol=1e-5)  # persons are averaged


@pytest.mark.parametrize(
    "network_of", [lambda m: efficientgcn(persons=m, **SMALL), lambda m: stgcn(persons=m)]
)
def test_the_mean_of_score_map_and_of_persons_is_the_logits(network_of) -> None:
    pair, single = network_of(2), network_of(1)
    randomise(pair)
    single.set_state_dict(pair.state_dict())
    channels = sum(pair.branch_channels)
    clips = clip_tensor_of(random_clips(3, channels, 16, 25, 2))
    logits = logits_of(pair, clips)
    with paddle.no_grad():
        score_map, feature = pair.extract_feature(clips)
    by_clip = score_map.numpy().mean(axis=(2, 3)).reshape(3, 2, -1).mean(axis=1)
    np.testing.assert_allclose(by_clip, logits, atol=1e-5)
    persons = logits_of(single, clips.reshape([6, 25, channels, 16]))
    np.testing.assert_allclose(persons.reshape(3, 2, -1).mean(axis=1), logits, atol=1e-5)
    assert feature.shape[0] == 6


@pytest.mark.parametrize(
    ("phi", "count"), list(enumerate([306_201, 410_337, 534_465, 754_601, 1_119_945]))
)
def test_efficientgcn_scaling(phi: int, count: int) -> None:
    assert num_trainable(efficientgcn(phi)) == count


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"layer_type": "Basic"}, 384_761),
        ({"layer_type": "Bottleneck"}, 329_017),
        ({"layer_type": "Sep"}, 304_377),
        ({"layer_type": "Sep", "expand_ratio": 2, "reduct_ratio": 4}, 345_333),
        ({"reduct_ratio": 4}, 272_645),
        ({"att_type": "pa"}, 353_193),
        ({"att_type": "ca"}, 274_981),
        ({"att_type": "ja"}, 264_281),
        ({"att_type": "fa"}, 259_145),
        ({"edge": False}, 285_576),
    ],
)
def test_efficientgcn_parameter_counts(changes: dict, count: int) -> None:
    assert num_trainable(efficientgcn(**changes)) == count


def test_rescale_rounds_half_to_even() -> None:
    blocks = rescale_blocks([[48, 1, 0.5], [24, 1, 0.5], [8, 2, 1.5]], 0, [1.2, 1.35])
    assert [tuple(b) for b in blocks] == [(48, 1, 0), (32, 1, 0), (16, 2, 2)]


PARTS = [{"layer_type": t} for t in ("Basic", "Bottleneck", "Sep", "SG")]
PARTS += [{"layer_type": "Sep", "expand_ratio": 2}, {"bias": False}, {"edge": False}]
PARTS += [{"att_type": t} for t in ATT_TYPES]
PARTS += [{"act_type": t} for t in ("relu", "relu6", "hswish", "swish")]
PARTS += [{"fusion_stage": s} for s in (0, 3)]


@pytest.mark.parametrize("changes", PARTS, ids=str)
def test_every_part_trains_and_folds(changes: dict) -> None:
    """Output shape, finite logits, a gradient on every parameter; folding keeps the logits."""
    paddle.seed(0)
    network = efficientgcn(branches=2, **{**SMALL, **changes})
    randomise(network)
    clips = clip_tensor_of(random_clips(3, 2, 6, 16, 25, 2))
    network.train()
    logits = network(clips)
    assert list(logits.shape) == [3, 60] and np.isfinite(logits.numpy()).all()
    paddle.nn.functional.cross_entropy(logits, paddle.to_tensor([1, 2, 3])).backward()
    without = [n for n, p in network.named_parameters() if not p.stop_gradient and p.grad is None]
    assert not without
    before = logits_of(network, clips)
    fold_network(network)
    assert not [
        s for s in network.sublayers() if isinstance(s, (paddle.nn.BatchNorm2D, paddle.nn.Dropout))
    ]
    np.testing.assert_allclose(logits_of(network, clips), before, atol=2e-5 * np.abs(before).max())


def test_stgcn_folds() -> None:
    network = stgcn(num_class=5)
    randomise(network)
    clips = clip_tensor_of(random_clips(2, 3, 16, 25, 2))
    before = logits_of(network, clips)
    fold_network(network)
    assert not [s for s in network.sublayers() if isinstance(s, paddle.nn.BatchNorm2D)]
    np.testing.assert_allclose(logits_of(network, clips), before, atol=1e-5)


def attention_reference(name: str, layer, x: np.ndarray) -> np.ndarray:
    """The attention weights in NumPy, from the published definitions; x: (P, C, T, V)."""

    def conv(c, y):  # 1x1
        bias = c.bias.numpy()[:, None, None] if c.bias is not None else 0
        return np.einsum("oc,pctv->potv", c.weight.numpy()[:, :, 0, 0], y) + bias

    def norm(b, y):
        s = b.weight.numpy() / np.sqrt(b._variance.numpy() + 1e-5)
        return y * s[:, None, None] + (b.bias.numpy() - b._mean.numpy() * s)[:, None, None]

    def softmax(y, axis):
        e = np.exp(y - y.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    if name == "fa":
        both = np.stack([x.mean(axis=(1, 3)), x.max(axis=(1, 3))], axis=1)  # (P, 2, T)
        kernel = layer.conv.weight.numpy()[0, :, :, 0]  # (2, 9)
        padded = np.pad(both, [(0, 0), (0, 0), (4, 4)])
        t = x.shape[2]
        out = [(padded[:, :, i : i + 9] * kernel).sum(axis=(1, 2)) for i in range(t)]
        return np.stack(out, axis=1)[:, None, :, None] + layer.conv.bias.numpy()
    pooled = x.mean(axis=(2, 3), keepdims=True)
    if name == "ja":
        pooled = x.mean(axis=(1, 2)).reshape(len(x), -1, 1, 1)  # (P, V, 1, 1)
    hidden = np.maximum(norm(layer.fcn[2], conv(layer.fcn[1], pooled)), 0)
    out = conv(layer.fcn[4], hidden)
    if name == "ca":
        return 1 / (1 + np.exp(-out))
    if name == "ja":
        return softmax(out, 1).transpose(0, 3, 2, 1)
    weights = softmax(out.reshape(len(x), x.shape[1], 1, len(NTU_25.parts)), 3)
    part_of = {v: n for n, part in enumerate(NTU_25.parts) for v in part}
    return weights[..., [part_of[v] for v in range(25)]]


@pytest.mark.parametrize("name", ["pa", "ca", "fa", "ja"])
def test_attention_equals_numpy(name: str) -> None:
    network = efficientgcn(branches=1, **{**SMALL, "att_type": name})
    randomise(network)
    network.eval()
    layer = getattr(network.main_stream, "block-0_att").att
    x = random_clips(3, 16, 9, 25)
    with paddle.no_grad():
        got = layer(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(got, x * attention_reference(name, layer, x), atol=1e-5)


def test_standard_deviations_of_random_weights() -> None:
    """The classifier starts near zero (std 0.001), convolutions by fan-out."""
    paddle.seed(0)
    network = efficientgcn()
    assert 0.0009 < float(network.classifier.fc.weight.numpy().std()) < 0.0011
    wide = getattr(network.main_stream, "block-1_scn").conv.gcn.weight.numpy()  # (384, 64, 1, 1)
    assert np.sqrt(2 / 384) * 0.95 < wide.std() < np.sqrt(2 / 384) * 1.05
    assert float(np.abs(stgcn().fcn.weight.numpy()).std()) < 0.02


def test_released_names_and_shapes() -> None:
    """Those of the public port's checkpoint, the rank-5 weight of the classifier included."""
    golden = {}
    for line in (GOLDEN / "efficientgcn_b0_names.txt").read_text().splitlines():
        name, _, shape = line.partition(" ")
        golden[name] = [int(size) for size in shape.strip(" []").split(",")]
    ours = {name: list(value.shape) for name, value in weights_of(efficientgcn()).items()}
    assert ours == golden


@pytest.mark.slow
def test_released_weights_give_golden_logits(samples: Path) -> None:
    network = efficientgcn()
    file = samples / "samples/weights/xsub.pdparams"
    load_weights(network, load_checkpoint(file)["model"], source=file)
    x = np.random.RandomState(0).randn(2, 3, 6, 288, 25, 2).astype(np.float32)
    clips = clip_tensor_of(x)
    golden = np.load(samples / "golden/efficientgcn_xsub_logits.npy")
    np.testing.assert_allclose(logits_of(network, clips), golden, atol=1e-4)
    with paddle.no_grad():
        feature = network.extract_feature(clips)[1].numpy()
    norm = np.linalg.norm(feature, axis=1).reshape(2, 2, 72, 25)  # (N, M, T, V)
    golden_norm = np.load(samples / "golden/efficientgcn_xsub_featnorm.npy")
    np.testing.assert_allclose(norm.transpose(0, 2, 3, 1), golden_norm, rtol=1e-3, atol=1e-3)


ACTIVATION_VALUES = {
    "relu": [0, 0, 0.5, 200],
    "relu6": [0, 0, 0.5, 6],
    "hswish": [0, -1 / 3, 0.5 * 3.5 / 6, 200],
    "swish": [0, -0.26894142, 0.31122967, 200],
}


@pytest.mark.parametrize("name", sorted(ACTIVATION_VALUES))
def test_activations_far_from_zero(name: str) -> None:
    """Values, and gradients that are finite where exp overflows float32."""
    x = paddle.to_tensor([-200.0, -1.0, 0.5, 200.0], stop_gradient=False)
    y = ACTIVATIONS[name]()(x)
    y.sum().backward()
    np.testing.assert_allclose(y.numpy(), ACTIVATION_VALUES[name], rtol=1e-5, atol=1e-6)
    assert np.isfinite(x.grad.numpy()).all()
