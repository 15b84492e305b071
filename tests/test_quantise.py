"""int8: the quantised layers, what stays float32, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import configs
import export as export_cli
from dataset.storage import open_clips
from deploy.engines.onnx_engine import OnnxEngine
from deploy.meta import read_meta
from deploy.predictor import Predictor
from deploy.stream_play import played
from deploy.stream_predictor import StreamPredictor
from errors import run_command
from model.streaming.state import FRAMES, MASK
from tests.small_models import SMALL, eval_clips, settings, write_weights
from tools import quantise as tool

GOOD = tool.Comparison(24, (0.900, 0.891), 0.9, 0.1, (1.0, 1.0))  # loses 0.9 points
BAD = dataclasses.replace(GOOD, accuracies=(0.900, 0.885))


@pytest.fixture(scope="module")
def float32(converter: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small(tmp_path_factory.mktemp("float32"), SMALL, "--per_person")


@pytest.fixture(scope="module")
def step(converter: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    causal = {**SMALL, "model_args.att_type": "stja-causal", "dataset_args.ntu.inputs": "J"}
    return export_small(tmp_path_factory.mktemp("step"), causal, "--contract", "stream")


def export_small(folder: Path, changes: dict[str, object], *flags: str) -> Path:
    write_weights(configs.load("9001", changes), folder / "small.pdparams")
    argv = ["-c", "9001", "-pp", str(folder / "small.pdparams"), *settings(changes), *flags]
    assert export_cli.main([*argv, "--format", "onnx", "--save_dir", str(folder)]) == 0
    return folder / "small.onnx"


@pytest.fixture
def copied(float32: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "m.onnx"
    copy.write_bytes(float32.read_bytes())
    return copy


def train_clips(tiny_data: Path) -> Path:
    return eval_clips(tiny_data).with_name("train_data.npy")


def run(*argv: object) -> int:
    return run_command(lambda: tool.main([str(a) for a in argv]))


def test_layers_with_weights_become_int8(copied: Path, tiny_data: Path, capsys) -> None:
    """Integer weights with int8 inputs; adjacency, attention gates and sums stay float32; logits
    differ by less than a twentieth of the largest one, and inference takes the file."""
    before = copied.read_bytes()
    data = eval_clips(tiny_data)
    assert run(copied, "--data_file", train_clips(tiny_data), "--eval_file", data, "--force") == 0
    assert copied.read_bytes() == before
    file = copied.with_name("m_int8.onnx")
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul")]
    int8 = [n for n in layers if _op(makers, n.input[0]) == "DequantizeLinear"]
    for node in int8:
        rounded = weights[makers[node.input[1]].input[0]]
        assert rounded.data_type == TensorProto.INT8 and list(rounded.dims)[-2:] != [25, 25]
        channels = rounded.dims[0 if node.op_type == "Conv" else 1]
        assert list(weights[makers[node.input[1]].input[1]].dims) == [channels], "a scale a channel"
    adjacency = [n for n in layers if n not in int8 and n.op_type == "MatMul"]
    assert len(int8) > 20 and adjacency
    assert f"{len(int8)} of " in capsys.readouterr().out
    assert model.doc_string.startswith(f"int8: {len(int8)} layers")

    meta = read_meta(file)
    unhashed = dataclasses.replace(meta, program_sha256=read_meta(copied).program_sha256)
    assert unhashed == read_meta(copied) and meta != unhashed
    clips = open_clips(data).data
    expected, got = (
        Predictor.load(path, engine="onnxruntime").run(clips).logits for path in (copied, file)
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.05 * np.abs(expected).max())


class MisScaled(OnnxEngine):
    """Halves the states, as a wrong scale of quantised ones would."""

    def run(self, feeds: tool.Feeds, *, exclusive: bool = True) -> list[np.ndarray]:
        scaled = {n: x if n in (FRAMES, MASK) else x / 2 for n, x in feeds.items()}
        return super().run(scaled, exclusive=exclusive)


def test_a_streaming_step_becomes_int8(step: Path, tiny_data: Path, monkeypatch, capsys) -> None:
    """Convolutions over a state and new frames too; the states stay float32 at the border. Both
    engines give nearly the logits of float32, nearer than with states of a wrong scale."""
    monkeypatch.setattr(tool, "CALIBRATION_CLIPS", 8)
    assert run(step, "--data_file", train_clips(tiny_data), "--force") == 0
    assert "\n16 clips " in capsys.readouterr().out
    file = step.with_name("small_int8.onnx")
    model, before = onnx.load(file), onnx.load(step)
    onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.input) == list(before.graph.input)
    assert list(model.graph.output) == list(before.graph.output)

    makers = {name: node for node in model.graph.node for name in node.output}
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul")]
    int8 = [n for n in layers if _op(makers, n.input[0]) == "DequantizeLinear"]
    rounded = [makers[makers[n.input[0]].input[0]].input[0] for n in int8]
    states = {value.name for value in model.graph.input}
    over_time = [name for name in rounded if _op(makers, name) == "Concat"]
    assert len(int8) > 10 and over_time
    assert all(states.intersection(makers[name].input) for name in over_time)

    meta = read_meta(file)
    assert meta == dataclasses.replace(read_meta(step), program_sha256=meta.program_sha256)
    clips = open_clips(eval_clips(tiny_data)).data[:6]
    expected = played(StreamPredictor.load(step, engine="onnxruntime"), clips)
    bound = 0.05 * np.abs(expected).max()
    for engine in ("onnxruntime", "openvino"):
        got = played(StreamPredictor.load(file, engine=engine), clips)
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound, err_msg=engine)
    wrong = played(StreamPredictor(MisScaled(step, 1), read_meta(step)), clips)
    assert np.abs(wrong - expected).max() > 2 * bound


def test_recorded_runs_are_a_sample_of_all(step: Path, monkeypatch) -> None:
    monkeypatch.setattr(tool, "MAX_BYTES", 20 * 40)
    monkeypatch.setattr(OnnxEngine, "run", lambda *_, **__: [])
    engine = tool.Recorder(step)
    for n in range(1000):
        engine.run({"x": np.full(10, n, np.float32)})
    kept = sorted(int(feed["x"][0]) for feed in engine.feeds)
    assert len(set(kept)) == 20 and kept[0] < 200 and kept[-1] > 800


def _op(makers: dict[str, onnx.NodeProto], name: str) -> str:
    return makers[name].op_type if name in makers else ""


def test_table_has_what_was_measured(copied: Path, tiny_data: Path, capsys) -> None:
    """Without --eval_file: on clips that are not used for calibration."""
    clips = open_clips(train_clips(tiny_data))
    count = len(clips)
    assert tool.split_rows(count) == (list(range(count)), list(range(count))), "no others"
    assert run(copied, "--data_file", train_clips(tiny_data), "--force") == 0
    out = capsys.readouterr().out
    logits = [
        Predictor.load(copied.with_name(name), engine="onnxruntime").run(clips.data).logits
        for name in ("m.onnx", "m_int8.onnx")
    ]
    for word, answers in zip(("float32", "int8"), logits):
        line = next(line for line in out.splitlines() if line.startswith(word))
        right = (answers.argmax(axis=1) == clips.labels).mean()
        assert f"{100 * right:.2f} %" in line and " kB " in line and line.endswith(" ms")
    agreement = (logits[0].argmax(axis=1) == logits[1].argmax(axis=1)).mean()
    assert f"{100 * agreement:.2f} % +-{np.abs(logits[0] - logits[1]).max():.3g} " in line


def test_clips_are_spread_and_apart() -> None:
    chosen, others = tool.split_rows(1000)
    assert len(chosen) == 64 and chosen[0] == 0 and chosen[-1] == 999
    assert len(others) == 500 and not set(chosen) & set(others)


@pytest.mark.parametrize("force", [False, True])
def test_a_loss_above_a_point_is_refused(
    copied: Path, tiny_data: Path, monkeypatch, capsys, force: bool
) -> None:
    monkeypatch.setattr(tool, "compare", lambda *_: BAD)
    argv = [copied, "--data_file", train_clips(tiny_data)]
    assert run(*argv, *["--force"] * force) == (0 if force else 2)
    assert copied.with_name("m_int8.onnx").exists() == force
    error = capsys.readouterr().err
    assert ("int8 loses 1.50 points on 24 clips, allowed 1; nothing was written" in error) != force
    assert ("--min_decibels 25 keeps more layers in float32" in error) != force


def test_more_decibels_keep_more_layers_in_float32(
    copied: Path, tiny_data: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(tool, "compare", lambda *_: GOOD)
    argv = [copied, "--data_file", train_clips(tiny_data), "--min_decibels"]
    counts = []
    for decibels in (0, 32):
        assert run(*argv, decibels) == 0
        counts.append(int(capsys.readouterr().out.split(" of ")[0]))
    assert counts[0] > counts[1] > 0
    assert run(*argv, 99) == 2 and "none of its" in capsys.readouterr().err


def test_a_loss_below_a_point_is_written(copied: Path, tiny_data: Path, monkeypatch) -> None:
    monkeypatch.setattr(tool, "compare", lambda *_: GOOD)
    assert run(copied, "--data_file", train_clips(tiny_data)) == 0
    assert copied.with_name("m_int8.onnx").is_file()


def test_loss_is_of_accuracy_else_of_agreement() -> None:
    assert BAD.loss() == pytest.approx(1.5)
    assert dataclasses.replace(BAD, accuracies=None).loss() == pytest.approx(10)
    assert dataclasses.replace(BAD, accuracies=(0.5, 0.6)).loss() == pytest.approx(-10)


def test_noise_of_eight_bits_by_hand() -> None:
    """Values spread evenly over 0 to 1 have a power of 1/3 and a step of 1/255: 54 dB. With one
    outlier of 1000 the ratio falls below 20 dB."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, None])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, None])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [2.0])
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="layer")
    graph = helper.make_graph([node], "one", [value], [output], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    even = np.linspace(0, 1, 10001, dtype=np.float32).reshape(1, 1, 1, -1)
    ratio = tool.noise_ratios(model, tool.weighted_nodes(model, 25), [{"x": even}])
    assert ratio["layer"] == pytest.approx(10 * np.log10(12 * 255**2 / 3), abs=0.01)
    even[..., 5] = 1000
    ratio = tool.noise_ratios(model, tool.weighted_nodes(model, 25), [{"x": even}])
    assert ratio["layer"] < 20


def test_mistakes_are_one_line(copied: Path, tiny_data: Path, tmp_path: Path, capsys) -> None:
    train = train_clips(tiny_data)
    foreign = onnx.load(copied)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert run(copied, "--data_file", train, "--force") == 0
    nan = np.array(open_clips(train).data)
    nan[3, 0, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    transformed = tiny_data / "transformed/synthetic-xsub/train_data.npy"
    capsys.readouterr()
    for model, data, message in (
        (copied.with_suffix(".pdmodel"), train, "allowed: a model that was written by: python"),
        (tmp_path / "foreign.onnx", train, "allowed: a model that was written by: python"),
        (tmp_path / "absent.onnx", train, "cannot be read"),
        (copied.with_name("m_int8.onnx"), train, "is int8 already; allowed: a float32 model"),
        (copied, transformed, "transform is True, the model says False"),
        (copied, tmp_path / "nan.npy", "holds NaN or infinity"),
    ):
        assert run(model, "--data_file", data) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
