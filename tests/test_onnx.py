"""ONNX and Paddle's newer format: files, refusals, and equality with the network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import paddle
import pytest
from onnx import TensorProto, helper

import export as export_cli
import infer as infer_cli
from configs.model import ATT_TYPES
from dataset.storage import open_clips
from deploy.engines.engine import open_engine
from deploy.engines.onnx_engine import OnnxEngine
from deploy.exporting import paddle_to_onnx
from deploy.exporting.graph_check import CHIP_OPERATORS, OPSET, inspect_program
from deploy.exporting.onnx_export import write_onnx
from deploy.exporting.static_export import write_json
from deploy.meta import read_meta
from deploy.predictor import Predictor
from errors import UserError, run_command
from model.layers import ACTIVATIONS
from tests.processes import ROOT
from tests.small_models import SET, eval_clips, logits_by_dygraph

FORMS = {"whole": [], "chip": ["--batch_size", "1", "--whole_clips", "--per_person"]}


@pytest.fixture(scope="module")
def onnx_models(converter: None, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<form>/small.onnx` of the same weights as `models`, and `json/small.json`."""
    folder = tmp_path_factory.mktemp("onnx")
    argv = ["-c", "9001", "-pp", str(models / "small.pdparams"), *SET]
    for name, flags in FORMS.items():
        target = ["--save_dir", str(folder / name), "--format", "onnx"]
        assert export_cli.main([*argv, *target, *flags]) == 0
        assert [path.name for path in (folder / name).iterdir()] == ["small.onnx"]
    target = ["--save_dir", str(folder / "json"), "--format", "json"]
    assert export_cli.main([*argv, *target]) == 0
    return folder


@pytest.mark.parametrize("file", [*(f"{form}/small.onnx" for form in FORMS), "json/small.json"])
def test_every_file_gives_the_logits_of_the_network(
    models: Path, onnx_models: Path, tiny_data: Path, file: str
) -> None:
    data = open_clips(eval_clips(tiny_data)).data
    clips = np.concatenate([data[:4], data[-3:]])
    expected = logits_by_dygraph(models, clips)
    engine = {"onnx": "onnxruntime", "json": "paddle"}[file.rpartition(".")[2]]
    model = Predictor.load(onnx_models / file, engine=engine)
    free = {"clips": [-1, 50, 18, -1], "cut": [-1, 1, 1, 1]}
    assert model.engine.inputs == ({"clips": [1, 25, 18, 16]} if "chip" in file else free)
    assert next(iter(model.engine.inputs)) == "clips"
    logits = model.run(clips).logits
    np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())


def test_onnx_graph_is_for_chips(onnx_models: Path) -> None:
    """Neither with static nor with dynamic shapes does an operator compute shapes."""
    for form in FORMS:
        facts = inspect_program(onnx_models / form / "small.onnx")
        assert facts.max_rank == 4 and not facts.problems
        assert facts.ops["Conv"] > 20 and set(facts.ops) <= CHIP_OPERATORS
        graph = onnx.load(onnx_models / form / "small.onnx").graph
        used = {name for node in graph.node for name in node.input}
        assert {tensor.name for tensor in graph.initializer} <= used
    assert not CHIP_OPERATORS & {"Shape", "Gather", "Expand", "Einsum", "Identity", "Constant"}
    assert f"\n{', '.join(sorted(CHIP_OPERATORS))}.\n" in (ROOT / "docs/export.md").read_text()
    free = onnx.load(onnx_models / "whole/small.onnx").graph
    axes = [[d.dim_param for d in i.type.tensor_type.shape.dim] for i in free.input]
    assert axes == [["batch", "", "", "frames"], ["batch", "", "", ""]]
    assert [value.name for value in free.output] == ["logits"]


def test_metadata_are_those_of_the_meta_file(models: Path, onnx_models: Path) -> None:
    inside, beside = (
        dataclasses.replace(read_meta(file), program_sha256="", params_sha256="")
        for file in (onnx_models / "whole/small.onnx", models / "whole/small.pdmodel")
    )
    assert inside == beside
    model = onnx.load(onnx_models / "whole/small.onnx")
    plain = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert plain["class_names"] == beside.class_names and plain["pipeline"] == beside.pipeline


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", "24", "was changed after export"),
        ("class_names", "[", "damaged metadata"),
        ("extra", "1", "unknown keys: extra"),
    ],
)
def test_changed_metadata_are_refused(
    onnx_models: Path, tmp_path: Path, key: str, value: str, message: str
) -> None:
    model = onnx.load(onnx_models / "whole/small.onnx")
    for prop in [p for p in model.metadata_props if p.key == key]:
        model.metadata_props.remove(prop)
    model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UserError, match=message):
        Predictor.load(tmp_path / "m.onnx")


def test_damaged_files_are_refused(models: Path, onnx_models: Path, tmp_path: Path) -> None:
    whole = (onnx_models / "whole/small.onnx").read_bytes()
    contents = [b"", b"garbage" * 99, whole[:-3000], (models / "whole/small.pdmodel").read_bytes()]
    for content in contents:
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(UserError, match="m.onnx"):
            Predictor.load(tmp_path / "m.onnx")
        with pytest.raises(UserError, match="m.onnx: not a model for ONNX Runtime"):
            OnnxEngine(tmp_path / "m.onnx", 1)
    text = (onnx_models / "json/small.json").read_bytes()
    for content in (b"", b"{}", b"garbage", text[:-100], text.replace(b'"#":"1.', b'"#":"7.', 1)):
        (tmp_path / "m.json").write_bytes(content)
        (tmp_path / "m.pdiparams").write_bytes(b"")
        with pytest.raises(UserError, match="m.json"):
            open_engine(tmp_path / "m.json", None, "paddle", 1)
    for missing in ("none.onnx", "none.json"):
        with pytest.raises(UserError, match=f"{missing}"):
            Predictor.load(tmp_path / missing)


def test_other_models_and_threads(onnx_models: Path, tmp_path: Path) -> None:
    engine = open_engine(onnx_models / "whole/small.onnx", None, "onnxruntime", 1)
    assert engine._session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(UserError, match="engine paddle does not run .onnx files"):
        open_engine(onnx_models / "whole/small.onnx", None, "paddle", 1)
    save_graph(tmp_path / "i.onnx", [("Relu", ["x"], ["y"], {})], dtype=TensorProto.DOUBLE)
    with pytest.raises(UserError, match="inputs must be float32; x is tensor"):
        OnnxEngine(tmp_path / "i.onnx", 1)
    save_graph(tmp_path / "port.onnx", [("Relu", ["x"], ["y"], {})])
    with pytest.raises(UserError, match="has no .meta.yaml beside it and takes"):
        Predictor.load(tmp_path / "port.onnx")


def save_graph(
    file: Path, nodes: list, shape: tuple = (2, 3, 4, 25), dtype: int = TensorProto.FLOAT,
    out_rank: int = 4, opset: int = OPSET,
) -> None:  # fmt: skip
    """An ONNX file from x to y. nodes: (operator, inputs, outputs, attributes)."""
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, **more) for op, inputs, outputs, more in nodes],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, [None] * out_rank)],
        [helper.make_tensor("a", TensorProto.FLOAT, [25, 25], [0.0] * 625)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), file)


FIVE = [
    ("Unsqueeze", ["x"], ["five"], {"axes": [0]}),
    ("Relu", ["five"], ["relu"], {}),
    ("Squeeze", ["relu"], ["y"], {"axes": [0]}),
]


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        (FIVE, "relu has rank 5"),
        (
            [("Einsum", ["x", "a"], ["y"], {"equation": "nctv,vw->nctw"})],
            "operator Einsum is not in the list for chips",
        ),
        ([("Erf", ["x"], ["y"], {})], "operator Erf is not in the list for chips"),
    ],
)
def test_graphs_unfit_for_chips_are_found(tmp_path: Path, nodes: list, problem: str) -> None:
    save_graph(tmp_path / "m.onnx", nodes)
    assert problem in inspect_program(tmp_path / "m.onnx").problems


def test_rank_5_is_allowed_at_the_border_only(tmp_path: Path) -> None:
    squeeze = [("Squeeze", ["x"], ["y"], {"axes": [0]})]
    save_graph(tmp_path / "m.onnx", squeeze, (1, 2, 3, 4, 25))
    assert inspect_program(tmp_path / "m.onnx").problems == ["x has rank 5"]
    assert not inspect_program(tmp_path / "m.onnx", border_rank=5).problems
    save_graph(tmp_path / "m.onnx", FIVE)
    assert inspect_program(tmp_path / "m.onnx", border_rank=5).problems
    save_graph(tmp_path / "m.onnx", [("Relu", ["x"], ["y"], {})], opset=14)
    assert inspect_program(tmp_path / "m.onnx").problems == ["opset  14"]
    save_graph(tmp_path / "m.onnx", [("Relu", ["nobody"], ["y"], {})])
    with pytest.raises(UserError, match="not valid ONNX"):
        inspect_program(tmp_path / "m.onnx")


class Plain(paddle.nn.Layer):
    """One convolution, and a function of its result."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.conv, self.function = paddle.nn.Conv2D(3, 3, 1), function

    def forward(self, clips):
        return self.function(self.conv(clips))


def save_plain(function: Callable, target: Path) -> Path:
    spec = [paddle.static.InputSpec([2, 3, 4, 25], "float32", "clips")]
    paddle.jit.save(Plain(function), str(target), spec)
    return Path(f"{target}.pdmodel")


def test_a_failure_of_the_converter_is_one_line(
    onnx_models: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """It aborts its process at an unknown operator."""
    meta = read_meta(onnx_models / "whole/small.onnx")
    program = save_plain(paddle.erfinv, tmp_path / "m")
    capfd.readouterr()
    with pytest.raises(UserError, match="Paddle2ONNX 2.1.0 cannot convert .* unsupported") as error:
        write_onnx(program, tmp_path / "m.onnx", meta, {"clips": (2, 3, 4, 25)})
    assert "\n" not in str(error.value) and not (tmp_path / "m.onnx").exists()
    program.write_bytes(b"no program")
    with pytest.raises(UserError, match="Paddle2ONNX 2.1.0 cannot convert"):
        write_onnx(program, tmp_path / "m.onnx", meta, {"clips": (2, 3, 4, 25)})
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("converter")
def test_export_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle2ONNX's default optimizer, 'polygraphy', installs packages while it runs."""
    given = {}
    monkeypatch.setattr("paddle2onnx.export", lambda *files, **more: given.update(more))
    paddle_to_onnx.main(str(tmp_path / "m.pdmodel"), str(tmp_path / "m.onnx"), str(OPSET))
    assert given["optimize_tool"] == "None" and given["auto_upgrade_opset"] is False


def test_a_5d_einsum_json_is_caught(tmp_path: Path) -> None:
    def five(x):
        return paddle.einsum("nctv,vw->nctw", x, paddle.ones([25, 25])).unsqueeze(0)

    (tmp_path / "new").mkdir()
    write_json(save_plain(five, tmp_path / "m"), tmp_path / "new/m.json")
    problems = inspect_program(tmp_path / "new/m.json", border_rank=5).problems
    assert problems == ["operator einsum"]
    assert "has rank 5" in inspect_program(tmp_path / "new/m.json").problems[0]


def test_a_missing_converter_is_one_line(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As on Python 3.13; nothing is written."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    argv = ["-c", "9001", "-pp", str(models / "small.pdparams"), *SET, "--format", "onnx"]
    argv += ["--save_dir", str(tmp_path / "out")]
    assert run_command(lambda: export_cli.main(argv)) == 2
    error = capsys.readouterr().err
    assert "has no release for Python 3.13" in error and "--format paddle" in error
    assert not (tmp_path / "out").exists()


def test_json_and_pdmodel_share_no_weights_file(
    models: Path, onnx_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for kind, folder in (("json", models / "whole"), ("paddle", onnx_models / "json")):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        argv = ["-c", "9001", "-pp", str(models / "small.pdparams"), *SET, "--format", kind]
        assert run_command(lambda: export_cli.main([*argv, "--save_dir", str(folder)])) == 2  # noqa: B023
        assert "small.pdiparams belongs to it; choose another --save_dir" in capsys.readouterr().err
        assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_infer_takes_an_onnx_file(
    onnx_models: Path, tiny_data: Path, capsys: pytest.CaptureFixture
) -> None:
    model = str(onnx_models / "whole/small.onnx")
    argv = ["--model_file", model, "--data_file", str(eval_clips(tiny_data))]
    assert infer_cli.main([*argv, "--engine", "onnxruntime"]) == 0
    assert "Infer Mean Accuracy" in capsys.readouterr().out


PARTS = [f"model_args.att_type={t}" for t in ATT_TYPES if t != "stja"]
PARTS += [f"model_args.layer_type={t}" for t in ("Basic", "Bottleneck", "Sep")]
PARTS += [f"model_args.act_type={t}" for t in ACTIVATIONS]


@pytest.mark.usefixtures("converter")
@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_part_exports_for_chips(tmp_path: Path, part: str) -> None:
    """Export itself checks operators, ranks and outputs."""
    argv = ["-c", "9001", *SET, part, "--with_feature", "--format", "onnx"]
    assert export_cli.main([*argv, "--save_dir", str(tmp_path)]) == 0
    assert read_meta(tmp_path / "9001_fresh.onnx").outputs == ["logits", "feature"]
