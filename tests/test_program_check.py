"""Static models of others: only operators that compute, checked before any engine sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import paddle
import pytest
from onnx import TensorProto, helper

import infer
from deploy.engines.engine import CPU_ENGINES, open_engine
from deploy.engines.probe import probe_once
from deploy.engines.program_check import check_program
from errors import UserError, run_command


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.pdmodel` without metadata, which doubles its input."""
    folder = tmp_path_factory.mktemp("program")

    class Twice(paddle.nn.Layer):
        def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
            return clips * self.factor

        def __init__(self) -> None:
            super().__init__()
            self.factor = self.create_parameter([1])

    paddle.jit.save(
        Twice(), str(folder / "m"), [paddle.static.InputSpec([1, 3, 6, 16, 25, 2], "float32")]
    )
    return folder / "m.pdmodel"


def with_operators(
    program: Path, target: Path, change: Callable[[paddle.static.Program], None]
) -> Path:
    """A copy of the program with more operators, and its parameters."""
    with paddle.base.framework._dygraph_guard(None):
        found = paddle.static.deserialize_program(program.read_bytes())
        change(found)
        target.write_bytes(found.desc.serialize_to_string())
    target.with_suffix(".pdiparams").write_bytes(program.with_suffix(".pdiparams").read_bytes())
    return target


def saves(path: Path) -> Callable[[paddle.static.Program], None]:
    """Adds an operator that writes the parameter into a file when the model is run."""

    def change(found: paddle.static.Program) -> None:
        block = found.global_block()
        (parameter,) = [v for v in block.vars if block.var(v).persistable and "feed" not in v
                        and "fetch" not in v]  # fmt: skip
        inputs = {"X": block.var(parameter)}
        block.append_op(type="save", inputs=inputs, attrs={"file_path": str(path)})

    return change


def loops(found: paddle.static.Program) -> None:
    """Adds an operator of a block inside, as a loop has it."""
    inner = found._create_block()
    inner.append_op(type="save", attrs={"file_path": "/tmp/x"})
    found._rollback()


@pytest.mark.parametrize("engine", ["auto", *CPU_ENGINES[".pdmodel"]])
def test_a_model_that_writes_files_is_refused(
    program: Path, tmp_path: Path, engine: str, capsys: pytest.CaptureFixture
) -> None:
    """By every engine, by the probe of models without metadata, and by infer.py."""
    written = tmp_path / "written"
    model = with_operators(program, tmp_path / "bad.pdmodel", saves(written))
    with pytest.raises(UserError, match="operators that are not allowed: 'save'"):
        open_engine(model, None, engine, 1)
    if engine == "auto":
        with pytest.raises(UserError, match="not allowed: 'save'"):
            probe_once(model, model.with_suffix(".pdiparams"), engine, 1)
        np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 25, 2), np.float32))
        argv = ["--model_file", str(model), "--data_file", str(tmp_path / "x.npy"), "-np"]
        assert run_command(lambda: infer.main(argv)) == 2
        assert "not allowed: 'save'" in capsys.readouterr().err
    assert not written.exists()


def test_blocks_inside_are_checked(program: Path, tmp_path: Path) -> None:
    model = with_operators(program, tmp_path / "bad.pdmodel", loops)
    with pytest.raises(UserError, match="not allowed: 'save'"):
        check_program(model)
    check_program(program)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"ops": [{"#": "1.add"}, {"#": "p"}, {"#": "1.relu_"}]}, ""),
        ({"ops": [{"#": "1.add", "regions": [{"ops": [{"#": "1.py_func"}]}]}]}, "'py_func'"),
        ({"ops": [{"#": "1.save_combine"}]}, "'save_combine'"),
        ({"ops": [{"#": "2.add"}]}, "'2.add'"),
        ({"ops": [{"#": "pd_op.add"}]}, "'pd_op.add'"),
        ({"ops": ["1.add"]}, ""),
        ({"ops": [{}]}, "'None'"),
        ('{"ops": [{"#": "1.save", "#": "1.add"}]}', "not a static model"),
        ("[" * 100_000, "not a static model"),
    ],
)
def test_json_programs(tmp_path: Path, content: object, reason: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    if reason:
        with pytest.raises(UserError, match=reason):
            check_program(file)
    else:
        check_program(file)


def onnx_model(*nodes: onnx.NodeProto, **more: list) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes), "g", [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])], **more,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_onnx_files(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    outside = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="/etc/passwd")
    inner = onnx_model(relu).graph
    function = helper.make_function("own", "F", ["a"], ["b"], [relu], [])
    with_function = onnx_model(relu)
    with_function.functions.append(function)
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    for model, reason in (
        (onnx_model(relu), ""),
        (onnx_model(helper.make_node("Loop", ["x"], ["y"], body=inner)), "graphs inside"),
        (onnx_model(helper.make_node("Own", ["x"], ["y"], domain="my")), "'my.Own'"),
        (onnx_model(helper.make_node("SequenceAt", ["x"], ["y"])), "'SequenceAt'"),
        (onnx_model(relu, initializer=[outside]), "in other files"),
        (onnx_model(constant, relu), "in other files"),
        (with_function, "functions of its own"),
    ):
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        if reason:
            with pytest.raises(UserError, match=reason):
                open_engine(tmp_path / "m.onnx", None, "onnxruntime", 1)
        else:
            check_program(tmp_path / "m.onnx")
