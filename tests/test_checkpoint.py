"""Fine-tuning: which weights of another network are taken, and what is said about the others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from networks import NTU_25, SMALL, efficientgcn, randomise

import configs
import main as cli
from dataset.graph import adjacency
from dataset.skeletons import Skeleton, skeleton
from errors import UserError, run_command
from model import build
from model.efficientgcn import EfficientGCN
from model.stgcn import STGCN
from training.checkpoint import load_checkpoint, load_fitting, save_checkpoint, weights_of

Arrays = dict[str, np.ndarray]


def arrays(network: paddle.nn.Layer) -> Arrays:
    return {name: np.array(tensor.numpy()) for name, tensor in weights_of(network).items()}


def same(a: Arrays, b: Arrays) -> set[str]:
    """Names whose values are equal in both."""
    return {name for name in a if name in b and np.array_equal(a[name], b[name])}


def small(branches: int = 3, seed: int = 0, **changes: Any) -> EfficientGCN:
    """No value of two seeds is equal, but for adjacencies."""
    network = efficientgcn(branches=branches, **{**SMALL, **changes})
    randomise(network, seed)
    return network


def small_stgcn(layout: Skeleton = NTU_25, channels: int = 3, seed: int = 0) -> STGCN:
    network = build.stgcn(
        [channels],
        60,
        adjacency(layout, "spatial"),
        persons=2,
        edge_importance=True,
        drop_prob=0.5,
        kernel_size=9,
        block_args=[(8, 1), (8, 1), (16, 2)],
    )
    randomise(network, seed)
    return network


def test_another_number_of_classes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    old, new = arrays(small()), small(seed=1)
    old["classifier.fc.weight"] = np.zeros((12, 16, 1, 1, 1), np.float32)
    fresh = arrays(new)
    load_fitting(new, old, "old.pdparams")
    after = arrays(new)
    names = {"classifier.fc.weight", "classifier.fc.bias"}  # the bias fits, its layer does not
    assert same(after, fresh) >= names
    assert set(after) - same(after, old) == names
    count = len([n for n in after if not n.endswith(".A")])
    loaded = f"Fine-tuning from old.pdparams: {count - 2} of {count} tensors loaded, "
    assert loaded in caplog.text
    assert "Starts fresh: classifier.fc (2)" in caplog.text
    assert "Not used: classifier.fc (2)" in caplog.text


def test_another_number_of_branches(caplog: pytest.LogCaptureFixture) -> None:
    """3 branches to 1: the first stem comes along; the main stream's first convolutions, whose
    input has other channels, start fresh; and the other way round."""
    caplog.set_level(logging.INFO)
    old, new = arrays(small(3)), small(1, seed=1)
    fresh = arrays(new)
    load_fitting(new, old, "old")
    after = arrays(new)
    first = "main_stream.block-0_scn."
    kept = {first + "conv.gcn.weight", first + "conv.gcn.bias"}
    assert kept == set(after) - same(after, old)
    assert kept <= same(after, fresh)
    assert "Starts fresh: main_stream.block-0_scn (2)" in caplog.text
    assert "input_branches.1 (" in caplog.text and "input_branches.2 (" in caplog.text

    wide = small(2, seed=2)
    fresh = arrays(wide)
    load_fitting(wide, after, "new")
    stems = {n for n in fresh if n.startswith("input_branches.1.")}
    assert stems <= same(arrays(wide), fresh)
    assert {n for n in fresh if n.startswith("input_branches.0.")} <= same(arrays(wide), after)


def test_another_number_of_channels_in_st_gcn() -> None:
    old, new = arrays(small_stgcn()), small_stgcn(channels=18, seed=1)
    before = arrays(new)
    load_fitting(new, old, "old")
    fresh = {f"st_gcn_networks.0.gcn.conv.{name}" for name in ("weight", "bias")}
    fresh |= {f"data_bn.{name}" for name in ("weight", "bias", "_mean", "_variance")}
    assert set(before) - same(arrays(new), old) == fresh
    assert fresh <= same(arrays(new), before)


def test_another_skeleton_of_as_many_joints_keeps_its_own_graph() -> None:
    old, new = arrays(small_stgcn()), small_stgcn(skeleton("openpose-25"), seed=1)
    before = arrays(new)
    load_fitting(new, old, "old")
    assert set(before) - same(arrays(new), old) == {"A"} == same(arrays(new), before)


def test_what_hardly_fits_or_is_not_finite_is_refused_and_changes_nothing() -> None:
    new = small()
    before = arrays(new)
    for weights, message in (
        ({"x": np.zeros(3, np.float32)}, "only 0.0 % of the network's values fit"),
        (
            arrays(small(edge=False)),
            r"only 49.\d % .*main_stream.block-0_scn \(1\).* choose the -mt",
        ),
        ({**before, "classifier.fc.bias": np.full(60, np.nan)}, "bias holds values"),
    ):
        with pytest.raises(UserError, match=message):
            load_fitting(new, weights, "w")
        assert same(arrays(new), before) == set(before)


def test_finetuning_from_the_command_line(tiny_keys: list[str], tmp_path: Path, capsys) -> None:
    """-ft begins with the old weights where they fit; without it they are refused; the other modes
    refuse -ft."""
    from initializer import Initializer

    keys = [*tiny_keys, "scheduler_args.cosine.max_epoch=1", "scheduler_args.cosine.warm_up=0"]
    keys += ["optimizer_args.Momentum.learning_rate=1e-20", "dataset_args.ntu.inputs=J"]
    old = Initializer(configs.load("9001", configs.parse_set(tiny_keys[1:]))).network(2, load=False)
    save_checkpoint(tmp_path / "old.pdparams", {"model": weights_of(old)})
    argv = ["-c", "9001", "-np", "-pp", str(tmp_path / "old.pdparams"), *keys]
    assert run_command(lambda: cli.main(argv)) == 2
    assert "does not fit the network" in capsys.readouterr().err
    assert cli.main(["-ft", *argv]) == 0
    assert "Fine-tuning from" in capsys.readouterr().out
    (last,) = (tmp_path / "work").glob("*/*/last.pdparams")
    name = "main_stream.block-0_tcn-0.depth_conv1.0.weight"
    np.testing.assert_allclose(load_checkpoint(last)["model"][name], arrays(old)[name], rtol=1e-6)

    for mode in ("-e", "-ex", "-r", "-gd"):
        assert run_command(lambda mode=mode: cli.main([mode, "-ft", *argv])) == 2
        assert "finetune is for training alone" in capsys.readouterr().err
    assert run_command(lambda: cli.main(["-ft", "-c", "9001", *tiny_keys])) == 2
    assert "finetune needs weights to start from" in capsys.readouterr().err
