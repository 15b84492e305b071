"""Weights as other people's programs save them, through -pp, -ft, export.py and convert_weights."""

from __future__ import annotations

import logging
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from networks import network_of
from torch_files import WRITERS, Name, Storage, Tensor, tensor

import configs
import export as export_cli
import main as cli
from deploy.predictor import Predictor
from errors import UserError, run_command
from tests.small_models import SET, SMALL, logits_by_dygraph
from tools import convert_weights
from training.checkpoint import load_checkpoint, weights_of

Arrays = dict[str, np.ndarray]


def arrays(network: paddle.nn.Layer) -> Arrays:
    return {name: np.array(tensor.numpy()) for name, tensor in weights_of(network).items()}


def network(path: Path, **keys: Any) -> paddle.nn.Layer:
    return network_of(configs.load("9001", {**SMALL, "pretrained_path": str(path), **keys}))


def torch_names(weights: Arrays, prefix: str) -> Arrays:
    """With BatchNorm's counters, and the classifier as torch's Linear layer."""
    state = {}
    for name, array in weights.items():
        torch = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        if name == "classifier.fc.weight":
            array = array.reshape(array.shape[:2])  # (out, in)
        state[prefix + torch] = array
        if torch.endswith("running_var"):
            counter = torch.replace("running_var", "num_batches_tracked")
            state[prefix + counter] = np.array(7, np.int64)
    return state


def halves(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 values: bfloat16, rounded towards zero, as Paddle saves it."""
    return (array.view(np.uint32) >> 16).astype(np.uint16)


def wrap(state: Any, place: str) -> Any:
    return {place: state, "epoch": 3, "config": "of another project"} if place else state


def write_paddle(path: Path, state: Arrays, place: str, bfloat16: bool) -> None:
    content = {n: halves(a) if bfloat16 and a.dtype.kind == "f" else a for n, a in state.items()}
    for name, array in content.items():
        if name.endswith("classifier.fc.weight"):
            content[name] = np.ascontiguousarray(array.T)  # (in, out)
    paddle.save(wrap(content, place), str(path))


def write_torch(form: str, path: Path, state: Arrays, place: str, bfloat16: bool) -> None:
    content = {}
    for n, (name, array) in enumerate(state.items()):
        content[name] = tensor(array, str(n))
        if bfloat16 and array.dtype.kind == "f":
            storage = Storage(halves(array), str(n), type_name="BFloat16Storage")
            content[name] = Tensor(storage, 0, array.shape, content[name].stride)
    WRITERS[form](path, wrap(content, place))


@pytest.mark.parametrize(
    ("form", "name", "place", "prefix", "bfloat16"),
    [
        ("paddle", "w.pdparams.tar", "net", "_layers.", False),
        ("paddle", "w.pdparams", "model_state_dict", "", True),
        ("paddle", "weights", "model", "_layers.module.", False),
        ("paddle", "w.pth", "", "module.", True),
        ("zip", "w.pdparams", "state_dict", "module.backbone.", False),
        ("zip", "w.pdparams.tar", "", "backbone.", True),
        ("legacy", "w.pdparams.tar", "model", "module.", False),
        ("legacy", "w.tar", "net", "", True),
    ],
)
def test_the_same_weights_in_every_disguise(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    form: str, name: str, place: str, prefix: str, bfloat16: bool,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    expected = arrays(network(models / "small.pdparams"))
    path, state = tmp_path / name, torch_names(expected, prefix)
    if form == "paddle":
        write_paddle(path, state, place, bfloat16)
    else:
        write_torch(form, path, state, place, bfloat16)
    if bfloat16:
        expected = {
            n: (halves(a).astype(np.uint32) << 16).view(np.float32) for n, a in expected.items()
        }
    for keys in ({}, {"finetune": True}):
        caplog.clear()
        got = arrays(network(path, **keys))
        adjacencies = {n for n in got if n.endswith(".A")} if keys else set()
        for key in expected.keys() - adjacencies:
            np.testing.assert_array_equal(got[key], expected[key], err_msg=key)
        norms = sum(key.endswith("num_batches_tracked") for key in state)
        assert norms and f"{path}: names of another project: " in caplog.text
        assert f"{norms} ignored (BatchNorm counters, which Paddle does not have)" in caplog.text
        assert f"{2 * norms} BatchNorm statistics renamed" in caplog.text
        assert "1 Linear weight read as 1x1 convolution" in caplog.text
        assert f"{len(expected)} prefix {prefix} removed" in caplog.text or not prefix
        if keys:
            assert "100.0 % of the values" in caplog.text
            assert "Not used: nothing" in caplog.text

    out = tmp_path / "out.pdparams"
    assert convert_weights.main([str(path), "-c", "9001", "-o", str(out), *SET]) == 0
    got = load_checkpoint(out)["model"]
    assert got.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(got[key], array, err_msg=key)
    caplog.clear()
    network(out)
    assert "another project" not in caplog.text, "own weights are loaded without a word"


@pytest.mark.usefixtures("converter")
def test_a_torch_file_is_exported_and_evaluated(
    models: Path, tmp_path: Path, tiny_data: Path, capsys
) -> None:
    """By export.py and main.py -e, to the logits and the accuracy of the same weights as .pdparams;
    -r refuses it, as it is no checkpoint of a run."""
    path = tmp_path / "w.pth.tar"
    write_torch("zip", path, torch_names(arrays(network(models / "small.pdparams")), ""), "", False)
    assert export_cli.main(["-c", "9001", "-pp", str(path), *SET, "--format", "onnx"]) == 0
    clips = np.random.RandomState(0).standard_normal((3, 3, 16, 25, 2)).astype(np.float32)
    (program,) = tmp_path.glob("*.onnx")
    logits = Predictor.load(program, cpu_threads=1).run(clips).logits
    np.testing.assert_allclose(logits, logits_by_dygraph(models, clips), atol=1e-4)

    keys = [*SET, f"dataset_args.ntu.root_folder={tiny_data}", f"work_dir={tmp_path / 'work'}"]
    lines = []
    for weights in (path, models / "small.pdparams"):
        capsys.readouterr()
        assert cli.main(["-c", "9001", "-e", "-np", "-pp", str(weights), *keys]) == 0
        lines.append([n for n in capsys.readouterr().out.splitlines() if "Top-1 accuracy" in n])
    assert len(lines[0]) == 1 and lines[0][0].split("]")[1] == lines[1][0].split("]")[1]
    assert run_command(lambda: cli.main(["-c", "9001", "-r", "-pp", str(path), *keys])) == 2
    error = capsys.readouterr().err
    assert "w.pth.tar" in error and error.count("\n") == 1


def test_files_that_are_no_weights_are_refused_by_content(tmp_path: Path) -> None:
    """Whatever they are called, and without running anything from them."""
    mark, path = tmp_path / "ran", tmp_path / "w.pdparams"
    evil = {"model": {"a": Name("os", "system", (f"touch {mark}",))}}
    with tarfile.open(tmp_path / "real.pdparams", "w") as archive:
        archive.add(__file__, "w.pdparams")
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    os.mkfifo(tmp_path / "pipe.pdparams")
    WRITERS["zip"](tmp_path / "zip.pdparams", evil)
    WRITERS["legacy"](tmp_path / "old.pdparams", evil)
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    for name, message in (
        ("zip.pdparams", "not a torch file of plain weights: os.system is not admitted"),
        ("old.pdparams", "not a torch file of plain weights: os.system is not admitted"),
        ("w.pdparams", "not a pickle of plain data: os.system is not admitted"),
        ("real.pdparams", r"a tar archive, .*; unpack it \(tar -xf .*real.pdparams\)"),
        ("x.npz", "a zip archive with 0 data.pkl instead of 1"),
        ("pipe.pdparams", "a pipe or a device"),
        ("none.pdparams", "cannot be read: No such file"),
        ("", "a folder; allowed: a file"),
    ):
        with pytest.raises(UserError, match=message):
            load_checkpoint(tmp_path / name)
    assert not mark.exists()
    path.write_bytes(pickle.dumps({"state_dict": {"a": np.ones(2)}, "opt": {}, "epoch": 5}))
    assert list(load_checkpoint(path)) == ["model"], "other projects' entries are not ours"
    path.write_bytes(pickle.dumps({"model": {"a": np.ones(2)}, "epoch": 5}))
    assert load_checkpoint(path)["epoch"] == 5


def test_foreign_names_of_the_released_weights(samples: Path, tmp_path: Path) -> None:
    """The real EfficientGCN-B0, in a torch file under a name that says something else."""
    real = samples / "samples/weights/xsub.pdparams"
    expected = load_checkpoint(real)["model"]
    path = tmp_path / "xsub.pdparams.tar"
    write_torch("zip", path, torch_names(expected, "module."), "state_dict", False)
    network = network_of(configs.load("2001", {"pretrained_path": str(path)}))
    for name, array in arrays(network).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
