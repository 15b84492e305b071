"""Checkpoints: fine-tuning from weights that fit in part, complete loading, optimizer state."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from networks import NTU_25, SMALL, efficientgcn, network_of, randomise, stgcn

import configs
import main as cli
from dataset.skeletons import Skeleton, skeleton
from errors import UserError, run_command
from model.efficientgcn import EfficientGCN
from model.stgcn import STGCN
from training.checkpoint import (
    fitting_optimizer_state,
    load_checkpoint,
    load_fitting,
    load_weights,
    optimizer_state,
    save_checkpoint,
    weights_of,
)
from training.run_state import different_keys

Arrays = dict[str, np.ndarray]


def arrays(network: paddle.nn.Layer) -> Arrays:
    return {name: np.array(tensor.numpy()) for name, tensor in weights_of(network).items()}


def same(a: Arrays, b: Arrays) -> set[str]:
    """Names whose values are equal in both."""
    return {name for name in a if name in b and np.array_equal(a[name], b[name])}


def small(branches: int = 3, seed: int = 0, **changes: Any) -> EfficientGCN:
    """Two seeds share no value but the adjacencies."""
    network = efficientgcn(branches=branches, **{**SMALL, **changes})
    randomise(network, seed)
    return network


def small_stgcn(layout: Skeleton = NTU_25, channels: int = 3, seed: int = 0) -> STGCN:
    network = stgcn(layout, channels=channels, block_args=((8, 1), (8, 1), (16, 2)))
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
    assert "Random weights: classifier.fc (2)" in caplog.text
    assert "Not used: classifier.fc (2)" in caplog.text


def test_another_number_of_branches(caplog: pytest.LogCaptureFixture) -> None:
    """3 branches to 1: the first stem is loaded; the main stream's first convolutions, whose
    number of input channels differs, keep random weights. And 1 branch to 2."""
    caplog.set_level(logging.INFO)
    old, new = arrays(small(3)), small(1, seed=1)
    fresh = arrays(new)
    load_fitting(new, old, "old")
    after = arrays(new)
    first = "main_stream.block-0_scn."
    kept = {first + "conv.gcn.weight", first + "conv.gcn.bias"}
    assert kept == set(after) - same(after, old)
    assert kept <= same(after, fresh)
    assert "Random weights: main_stream.block-0_scn (2)" in caplog.text
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
    """-ft starts from the old weights where they fit; without it they are refused; the other modes
    refuse -ft."""

    keys = [*tiny_keys, "scheduler_args.cosine.max_epoch=1", "scheduler_args.cosine.warm_up=0"]
    keys += ["optimizer_args.Momentum.learning_rate=1e-20", "dataset_args.ntu.inputs=J"]
    old = network_of(configs.load("9001", configs.parse_set(tiny_keys[1:])))
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
        assert "finetune is for training only" in capsys.readouterr().err
    assert run_command(lambda: cli.main(["-ft", "-c", "9001", *tiny_keys])) == 2
    assert "finetune needs weights to start from" in capsys.readouterr().err


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    """Read back by our reader and by Paddle's; the classifier has the public port's rank 5."""
    paddle.seed(1)
    network, other = efficientgcn(**SMALL), efficientgcn(**SMALL)
    file = tmp_path / "w.pdparams"
    save_checkpoint(file, {"model": weights_of(network), "epoch": 3})
    content = load_checkpoint(file)
    assert content["epoch"] == 3
    assert content["model"]["classifier.fc.weight"].shape == (60, 16, 1, 1, 1)
    load_weights(other, content["model"], source=file)
    for (name, a), b in zip(network.state_dict().items(), other.state_dict().values()):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    by_paddle = paddle.load(str(file))
    np.testing.assert_array_equal(
        by_paddle["model"]["classifier.fc.bias"].numpy(), network.classifier.fc.bias.numpy()
    )


def test_bare_and_squeezed_state_dicts_load(tmp_path: Path) -> None:
    network = efficientgcn(**SMALL)
    paddle.save(network.state_dict(), str(tmp_path / "bare.pdparams"))
    content = load_checkpoint(tmp_path / "bare.pdparams")
    load_weights(network, content["model"], source="bare")  # rank 4, as in the network
    assert set(content) == {"model"}


def test_wrong_weights_are_refused_by_name(tmp_path: Path) -> None:
    network = efficientgcn(**SMALL)
    weights = {k: v.numpy() for k, v in weights_of(network).items()}
    before = network.classifier.fc.bias.numpy().copy()
    broken = dict(weights, extra=np.zeros(1), **{"classifier.fc.bias": np.zeros(7)})
    del broken["main_stream.block-0_scn.bn.bias"]
    pattern = r"missing main_stream.block-0_scn.bn.bias; unexpected extra; .*fc.bias is \[7\]"
    with pytest.raises(UserError, match=pattern):
        load_weights(network, broken, source="f")
    nan = dict(weights, **{"classifier.fc.bias": np.full(60, np.nan, np.float32)})
    with pytest.raises(UserError, match="not finite"):
        load_weights(network, nan, source="f")
    np.testing.assert_array_equal(network.classifier.fc.bias.numpy(), before)
    for content, message in (
        ([1], "contains a list"),
        ({}, "no weights"),
        ({"a": "b"}, "no weights"),
    ):
        (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=message):
            load_checkpoint(tmp_path / "x.pdparams")


def test_optimizer_state_survives_other_parameter_names() -> None:
    """Paddle's parameter names depend on the process; the stored state uses the network's names. A
    step with the stored momentum must equal the step of the first optimizer."""
    pair = []
    for _ in range(2):  # Paddle names the second network's parameters differently
        network = efficientgcn(**{**SMALL, "drop_prob": 0.0}, branches=1)
        pair.append((network, paddle.optimizer.Momentum(0.1, 0.9, network.parameters())))
    (first, optimizer), (second, fresh) = pair
    x = paddle.to_tensor(np.random.RandomState(0).randn(2, 50, 6, 8).astype(np.float32))

    def step(network: paddle.nn.Layer, optimizer: paddle.optimizer.Momentum) -> np.ndarray:
        (network(x) ** 2).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        return network.main_stream[0].conv.gcn.weight.numpy().copy()

    step(first, optimizer)
    second.set_state_dict(first.state_dict())
    stored = {k: v.numpy() for k, v in optimizer_state(first, optimizer).items()}
    assert len(stored) == len([p for p in first.parameters() if not p.stop_gradient])
    fresh.set_state_dict(fitting_optimizer_state(second, fresh, stored, source="f"))
    expected, got = step(first, optimizer), step(second, fresh)
    np.testing.assert_array_equal(got, expected)
    for wrong in ({}, dict(stored, **{"nobody.velocity_0": np.zeros(1)})):
        with pytest.raises(UserError, match=r"state does not fit: .*velocity_0 missing"):
            fitting_optimizer_state(second, fresh, wrong, source="f")


def test_different_keys() -> None:
    """Only what changes the result, of the groups that are used; not what one side lacks."""
    first = configs.load("9001")
    here = {"log_every": 3, "finetune": True, "pretrained_path": "w", "work_dir": "x"}
    here.update({f"dataset_args.ntu.{key}": "y" for key in ("root_folder", "synthetic_path")})
    here.update({f"dataset_args.ntu.{k}": n for k, n in (("num_workers", 5), ("num_frame", 8))})
    here.update({"dataset_args.ntu.eval_batch_size": 3, "dataset_args.ntu.on_bad_file": "skip"})
    here.update({"dataset_args.kinetics.num_frame": 7, "optimizer_args.Adam.beta1": 0.5})
    here.update({"scheduler_args.cosine.warm_up": 0, "scheduler_args.step.warm_up": 0})
    text, changed = configs.dump(first), ["dataset_args.ntu.num_frame"]
    changed += ["scheduler_args.cosine.warm_up"]
    assert different_keys(text, configs.load("9001", here)) == changed
    assert different_keys(configs.dump(configs.load("9001", here)), first) == changed
    assert different_keys(text + "world_size: 2", first) == ["world_size"]
    assert different_keys(text + "new: 0", first) == []
