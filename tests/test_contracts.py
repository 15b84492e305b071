"""Export contracts: the ailia sample's, one of a test, and the 4-D port's against golden arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import paddle
import paddle.nn.functional as F
import pytest
from networks import NTU_25, clip_tensor_of, network_of, randomise, stgcn

import export as export_cli
from configs import load, parse_set
from dataset.skeletons import skeleton
from deploy.engines.engine import CPU_ENGINES, open_engine
from deploy.engines.onnx_engine import OnnxEngine
from deploy.exporting.contracts import CONTRACTS, Contract
from deploy.exporting.formats import Sizes
from deploy.exporting.verify import DummyInput
from deploy.exporting.wrappers import Wrapper
from deploy.meta import read_meta
from deploy.predictor import Predictor
from errors import UserError, run_command
from tests.small_models import SET, SMALL
from training.checkpoint import save_checkpoint, weights_of

GOLDEN = Path(__file__).parent / "golden"
STGCN = ["--set", "model_args.block_args=[[8,1],[16,2],[16,2]]", "model_args.drop_prob=0.0"]


@pytest.mark.parametrize("kind", ["onnx", "paddle", "json"])
def test_the_ailia_contract(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """T and M are dynamic; the mean of `output` is the logits of the network for M persons."""
    if kind == "onnx":
        request.getfixturevalue("converter")
    network = network_of(load("1005", parse_set(STGCN[1:])))
    randomise(network)
    save_checkpoint(tmp_path / "w.pdparams", {"model": weights_of(network)})
    argv = ["-c", "1005", "-pp", str(tmp_path / "w.pdparams"), *STGCN]
    assert export_cli.main([*argv, "--contract", "ailia", "--format", kind]) == 0
    file = tmp_path / {"onnx": "w.onnx", "paddle": "w.pdmodel", "json": "w.json"}[kind]
    network.eval()
    rng = np.random.RandomState(1)
    for name in CPU_ENGINES[file.suffix]:
        engine = open_engine(file, None, name, 2)
        assert engine.inputs == {"data": [1, 3, -1, 18, -1]}
        for t, m in ((21, 2), (16, 1), (33, 4)):
            data = rng.standard_normal((1, 3, t, 18, m)).astype(np.float32)
            output, feature = engine.run({"data": data})
            frames = -(-t // 4)
            assert output.shape == (1, 400, frames, 18, m)
            assert feature.shape == (1, 16, frames, 18, m)
            network.persons = m
            with paddle.no_grad():
                logits = network(clip_tensor_of(data)).numpy()
            mean = output.mean(axis=(2, 3, 4))
            np.testing.assert_allclose(mean, logits, atol=1e-5 * np.abs(logits).max())
    with pytest.raises(UserError, match="follows the ailia contract"):
        Predictor.load(file)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-c", "9001", *SET], "is for ST-GCN with one input branch"),
        (["-c", "1005", "--per_person"], "leave out --batch_size, --per_person"),
        (["-c", "1005", "--batch_size", "2"], "leave out --batch_size, --per_person"),
    ],
)
def test_ailia_refuses_other_networks_and_options(
    tmp_path: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    argv = [*argv, "--contract", "ailia", "--format", "onnx", "--save_dir", str(tmp_path / "out")]
    assert run_command(lambda: export_cli.main(argv)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


class TimeFirst(Wrapper):
    """frames (N, T, I*C, M*V) -> probabilities (N, num_class)."""

    def forward(self, frames: paddle.Tensor) -> paddle.Tensor:
        return F.softmax(self.network(frames.transpose([0, 3, 2, 1])))

    def dummy_inputs(self, sizes: Sizes) -> list[DummyInput]:
        shape = (2, sizes.frames, sizes.channels, sizes.persons * sizes.joints)
        frames = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
        return [DummyInput({"frames": frames}, [probabilities(self.network, frames)])]


def probabilities(network: paddle.nn.Layer, frames: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        logits = network(paddle.to_tensor(frames.transpose(0, 3, 2, 1))).numpy()
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


TOY = Contract(
    summary="takes frames and gives probabilities",
    inputs=lambda s: {"frames": ("batch", s.frames, s.channels, s.persons * s.joints)},
    outputs=("probabilities",),
    wrapper=lambda network, options: TimeFirst(network),
    batch_outputs=lambda name: True,
    options=frozenset({"per_person"}),
)


@pytest.mark.parametrize("kind", ["onnx", "paddle"])
def test_a_contract_is_one_row(
    models: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys, request
) -> None:
    """Export proves it on every engine of the format; two are compared on other clips here."""
    if kind == "onnx":
        request.getfixturevalue("converter")
    monkeypatch.setitem(CONTRACTS, "toy", TOY)
    weights = models / "small.pdparams"
    argv = ["-c", "9001", "-pp", str(weights), *SET, "--contract", "toy", "--format", kind]
    argv += ["--save_dir", str(tmp_path)]
    assert run_command(lambda: export_cli.main([*argv, "--whole_clips"])) == 2
    refused = "--contract toy takes frames and gives probabilities; leave out --batch_size, "
    assert f"{refused}--with_feature, --whole_clips" in capsys.readouterr().err
    assert export_cli.main([*argv, "--per_person"]) == 0
    file = tmp_path / {"onnx": "small.onnx", "paddle": "small.pdmodel"}[kind]
    assert read_meta(file).contract == "toy"
    network = network_of(load("9001", {**SMALL, "pretrained_path": str(weights)}))
    network.persons = 1
    network.eval()
    frames = np.random.RandomState(1).standard_normal((4, 16, 18, 25)).astype(np.float32)
    expected = probabilities(network, frames)
    engines = CPU_ENGINES[file.suffix]
    assert len(engines) >= 2
    for name in engines:
        engine = open_engine(file, None, name, 2)
        assert engine.inputs == {"frames": [-1, 16, 18, 25]}
        (got,) = engine.run({"frames": frames})
        np.testing.assert_allclose(got, expected, atol=1e-5)
    if kind == "onnx":
        graph = onnx.load(file).graph
        axes = [value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)]
        assert [axis.dim_param for axis in axes] == ["batch", "batch"]
    with pytest.raises(UserError, match="follows the toy contract"):
        Predictor.load(file)


def test_metadata_of_an_unknown_contract_are_refused(models: Path, tmp_path: Path) -> None:
    meta = dataclasses.replace(read_meta(models / "whole/small.pdmodel"), contract="toy")
    meta.save(tmp_path / "m.meta.yaml")
    with pytest.raises(UserError, match="contract is 'toy'; allowed: clips, ailia"):
        read_meta(tmp_path / "m.pdmodel")


@pytest.mark.usefixtures("converter")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "layout", "config", "key"),
    [
        ("stgcn_nturgbd", NTU_25, "1001", "ntu"),
        ("stgcn_openpose", skeleton("openpose-18"), "1005", "kinetics"),
    ],
)
def test_golden_logits_by_onnx_runtime(
    tmp_path: Path, file: str, layout, config: str, key: str
) -> None:
    """(N, M*V, C, T), the input of st-gcn_4d, and the one of the ailia sample."""
    golden = np.load(GOLDEN / f"{file}.npz")
    num_class, v = golden["logits"].shape[1], layout.num_joint
    network = stgcn(layout, num_class)
    randomise(network)
    save_checkpoint(tmp_path / "w.pdparams", {"model": weights_of(network)})
    argv = ["-c", config, "-pp", str(tmp_path / "w.pdparams"), "--format", "onnx"]
    argv += ["--set", f"dataset_args.{key}.num_frame=32"]
    data = np.random.RandomState(1).standard_normal((2, 3, 32, v, 2)).astype(np.float32)
    assert export_cli.main([*argv, "--whole_clips"]) == 0
    engine = OnnxEngine(tmp_path / "w.onnx", 2)
    assert engine.inputs == {"clips": [-1, 2 * v, 3, 32]}
    (logits,) = engine.run({"clips": clip_tensor_of(data).numpy()})
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5)
    assert export_cli.main([*argv, "--contract", "ailia"]) == 0
    engine = OnnxEngine(tmp_path / "w.onnx", 2)
    output, feature = engine.run({"data": data[:1]})
    part = golden["output0"]  # (classes, t, v, M), of openpose the first 8 classes
    np.testing.assert_allclose(output[0, : len(part)], part, atol=1e-5)
    np.testing.assert_allclose(output.mean(axis=(2, 3, 4)), golden["logits"][:1], atol=1e-5)
    norm = np.linalg.norm(feature[0], axis=0)
    np.testing.assert_allclose(norm, golden["feat_norm"][0], rtol=1e-4)
    output, feature = engine.run({"data": np.zeros((1, 3, 300, v, 2), np.float32)})
    assert output.shape == (1, num_class, 75, v, 2) and feature.shape == (1, 256, 75, v, 2)
