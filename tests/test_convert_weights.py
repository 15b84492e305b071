"""PyTorch files read without torch: both formats by value, hostile ones, and whole networks."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from archives import archive_of
from networks import clip_tensor_of, network_of, randomise
from torch_files import MAGIC_NUMBER, WRITERS, Name, Storage, Tensor, tensor, tensors, write_zip

import configs
from errors import UserError, run_command
from tools import convert_weights
from training.checkpoint import load_checkpoint, load_weights, weights_of
from training.torch_file import read_torch

BOTH = pytest.mark.parametrize("form", sorted(WRITERS))
ROW = Storage(np.arange(24, dtype=np.float32), "0")


@BOTH
def test_every_kind_of_value(tmp_path: Path, form: str) -> None:
    values = [-3, 0, 1.5, 100]
    kinds = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
    arrays = {kind: np.abs(values).astype(kind).reshape(2, 2) for kind in kinds}
    got, name = read_torch(WRITERS[form](tmp_path / "w.pt", tensors(arrays)))
    assert name == form and set(got) == set(kinds)
    for kind, array in arrays.items():
        assert got[kind].dtype == kind
        np.testing.assert_array_equal(got[kind], array)


@BOTH
def test_bfloat16_becomes_float32(tmp_path: Path, form: str) -> None:
    halves = np.array([0x3F80, 0xC040, 0x0000, 0x7F80], np.uint16)  # 1, -3, 0, inf
    storage = Storage(halves, "0", type_name="BFloat16Storage")
    path = WRITERS[form](tmp_path / "w.pt", Tensor(storage, 1, (3,), (1,)))
    got, _ = read_torch(path)
    assert got.dtype == np.float32 and got.tolist() == [-3, 0, np.inf]


@BOTH
def test_views_of_a_storage(tmp_path: Path, form: str) -> None:
    views = {
        "transposed": Tensor(ROW, 0, (6, 4), (1, 6)),
        "late": Tensor(ROW, 20, (2, 2), (2, 1)),
        "scalar": Tensor(ROW, 23, (), (), "_rebuild_tensor", ()),
        "spread": Tensor(ROW, 5, (3,), (0,)),
        "empty": Tensor(ROW, 24, (0, 7), (7, 1)),
        "marked": Tensor(ROW, 1, (1, 2), (99, 1), rest=(True, {}, {})),
    }
    got, _ = read_torch(WRITERS[form](tmp_path / "w.pt", views))
    row = np.arange(24, dtype=np.float32)
    np.testing.assert_array_equal(got["transposed"], row.reshape(4, 6).T)
    assert got["late"].tolist() == [[20, 21], [22, 23]]
    assert got["scalar"].shape == () and got["scalar"] == 23
    assert got["spread"].tolist() == [5, 5, 5] and got["marked"].tolist() == [[1, 2]]
    assert got["empty"].shape == (0, 7)


@BOTH
def test_what_else_checkpoints_hold(tmp_path: Path, form: str) -> None:
    state = collections.OrderedDict(weight=tensor(np.ones((2, 3), np.float32), "7"))
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    content = {
        "model": state,
        "parameter": Name("torch._utils", "_rebuild_parameter", (state["weight"], True, {})),
        "size": Name("torch", "Size", ((2, 3),)),
        "device": Name("torch", "device", ("cuda", 0)),
        "milestones": collections.Counter({10: 1}),
        "best_state": {"acc": np.float64(0.5), "cm": np.eye(2, dtype=np.int64)},
        "epoch": 3,
    }
    got, _ = read_torch(WRITERS[form](tmp_path / "w.pth.tar", content))
    for array in (got["model"]["weight"], got["parameter"]):
        np.testing.assert_array_equal(array, np.ones((2, 3)))
    assert (got["size"], got["device"], got["milestones"]) == ((2, 3), "cuda 0", {10: 1})
    assert got["best_state"]["acc"] == 0.5 and got["best_state"]["cm"].tolist() == [[1, 0], [0, 1]]


def test_byte_orders(tmp_path: Path) -> None:
    for order in ("big", "little", None):
        got, _ = read_torch(write_zip(tmp_path / "w.pt", Tensor(ROW, 3, (1,), (1,)), order))
        assert got.tolist() == [3]
    with pytest.raises(UserError, match="byteorder is b'middle'; allowed: little, big"):
        read_torch(write_zip(tmp_path / "w.pt", [], "middle"))


class Runs:
    def __init__(self, mark: Path) -> None:
        self.call = os.system, (f"touch {mark}",)

    def __reduce__(self) -> Any:
        return self.call


def hostile(mark: Path) -> dict[str, Any]:
    """What is wrong with it -> content."""
    script = f"open({str(mark)!r}, 'w')"
    lying = Storage(np.zeros(4, np.float32), "0", count=2**40)
    return {
        "posix.system is not admitted": Runs(mark),
        "builtins.eval is not admitted": Name("builtins", "eval", (script,)),
        "os.system is not admitted": Name("os", "system", (f"touch {mark}",)),
        "torch.load is not admitted": Name("torch", "load", ("other.pt",)),
        "_rebuild_xla_tensor is not admitted": Tensor(ROW, 0, (1,), (1,), "_rebuild_xla_tensor"),
        "torch._utils._import_dotted_name is not": Name(
            "torch._utils", "_import_dotted_name", ("os.system",)
        ),
        "stgcn.Model is not admitted; save only the weights": Name("stgcn", "Model", ()),
        "without storage": Name("torch._utils", "_rebuild_tensor", ([1.0], 0, (1,), (1,))),
        "size unlike stride": Tensor(ROW, 0, (2, 2), (1,)),
        r"\(0, -1, 1\) for offset": Tensor(ROW, 0, (-1,), (1,)),
        r"\(-4, 4, 1\) for offset": Tensor(ROW, -4, (4,), (1,)),
        r"\(0, 4, -1\) for offset": Tensor(ROW, 0, (4,), (-1,)),
        r"\(0, True, 1\) for offset": Tensor(ROW, 0, (True,), (1,)),
        r"tensor of \(25,\) values at 0": Tensor(ROW, 0, (25,), (1,)),
        r"tensor of \(4,\) values at 21": Tensor(ROW, 21, (4,), (1,)),
        r"at 0, stride \(10, 3\)": Tensor(ROW, 0, (3, 3), (10, 3)),
        r"tensor of \(1000000, 1000000\) values": Tensor(ROW, 0, (10**6, 10**6), (0, 0)),
        "stored negated or conjugated": Tensor(ROW, 0, (1,), (1,), rest=(False, {}, {"neg": True})),
        "ComplexFloatStorage is not admitted": Storage(
            np.zeros(2, np.float32), "0", type_name="ComplexFloatStorage"
        ),
        "storage 0 has (16 bytes|4 values) instead of": Tensor(lying, 2**39, (1,), (1,)),
        "two different descriptions": [Tensor(lying, 0, (1,), (1,)), Tensor(ROW, 0, (1,), (1,))],
        "_Storage is not admitted as data": ROW,
        "a function is not admitted as data": Name("torch._utils", "_rebuild_tensor_v2"),
        "memoryview": Name("builtins", "bytearray", (2**45,)),
    }


@BOTH
@pytest.mark.parametrize("wrong", sorted(hostile(Path("x"))))
def test_hostile_files_run_nothing(tmp_path: Path, form: str, wrong: str) -> None:
    mark = tmp_path / "ran"
    path = WRITERS[form](tmp_path / "evil.pth", hostile(mark)[wrong])
    with pytest.raises(UserError, match=rf"evil.pth: not a torch file of plain weights: .*{wrong}"):
        read_torch(path)
    assert not mark.exists()


def test_legacy_files_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    whole = WRITERS["legacy"](path, tensors({"a": np.arange(4, dtype=np.float32)})).read_bytes()
    for content, message in (
        (whole[:-1], "a storage needs 16 bytes, the file has 15 left"),
        (whole.replace(b"\x04\0\0\0\0\0\0\0", b"\x05\0\0\0\0\0\0\0"), "5 values instead of 4"),
        (pickle.dumps({"weights": 1}, 2), "it does not begin like torch's files"),
        (pickle.dumps(MAGIC_NUMBER, 2) + pickle.dumps(7, 2) * 2, "format version 7"),
        (whole.replace(b"0q\x01a.", b"1q\x01a."), "its list of storages differs from"),
        (whole.replace(b"\x80\x02]", b"\x80\x02\x04"), "damaged pickle: KeyError"),
        (b"", "not a torch file of plain weights"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_torch(path)
    path.write_bytes(b"x" * 257 + b"ustar  \0" + b"x" * 300)
    with pytest.raises(UserError, match=r"old.pt: a tar archive, torch's format before"):
        read_torch(path)
    with pytest.raises(UserError, match="absent.pt: cannot be read: No such file"):
        read_torch(tmp_path / "absent.pt")


def test_zip_archives_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(UserError, match="a TorchScript program; save only the weights"):
        read_torch(write_zip(path, [], constants_pkl=b""))
    with pytest.raises(UserError, match="storage 0 has 3 bytes instead of 96"):
        read_torch(write_zip(path, Tensor(ROW, 0, (1,), (1,)), **{"data/0": b"abc"}))
    lacking = b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x009NK\x01tQ."
    with pytest.raises(UserError, match="archive/data/9, the values of storage 9, is missing"):
        read_torch(write_zip(path, [], data_pkl=lacking))
    for method, name, message in (
        (zipfile.ZIP_DEFLATED, "a/data.pkl", "a compressed zip archive"),
        (zipfile.ZIP_STORED, "data.json", "with 0 data.pkl instead of 1"),
    ):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr(name, b"\x80\x02]." * 100)
        with pytest.raises(UserError, match=message):
            read_torch(path)


@BOTH
def test_damaged_files_are_refused(tmp_path: Path, form: str) -> None:
    arrays = {"a": np.arange(30, dtype=np.float32).reshape(5, 6), "b": np.ones(3)}
    whole = WRITERS[form](tmp_path / "w.pt", {"model": tensors(arrays), "epoch": 3}).read_bytes()
    rng = np.random.RandomState(0)
    refused = 0
    for trial in range(400):
        damaged = bytearray(whole[: rng.randint(len(whole))] if trial % 2 else whole)
        for _ in range(3):
            if damaged:
                damaged[rng.randint(len(damaged))] = rng.randint(256)
        (tmp_path / "d.pt").write_bytes(damaged)
        try:
            read_torch(tmp_path / "d.pt")
        except UserError as error:
            assert str(tmp_path / "d.pt") in str(error)
            refused += 1
    assert refused > 200


def evaluated(config: str) -> paddle.nn.Layer:
    network = network_of(configs.load(config))
    network.eval()
    return network


def torch_state(network: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """The network's weights as torch has them: names, counters, and the 4-D code's conv0."""
    state = {}
    for name, value in weights_of(network).items():
        name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        state[name] = value.numpy()
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = np.array(7)
        if name.endswith("gcn.conv.bias") and "st_gcn_networks" in name:
            for leaf in ("weight", "bias"):
                state[name.replace("conv.bias", f"conv0.{leaf}")] = np.zeros((2, 2), np.float32)
    return state


@pytest.mark.parametrize(
    ("config", "channels", "form", "place"),
    [("1001", (3,), "legacy", ""), ("2001", (3, 6), "zip", "model")],
)
def test_networks_travel_through_torch_files(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    config: str,
    channels: tuple,
    form: str,
    place: str,
) -> None:
    network = evaluated(config)
    randomise(network)
    state = {f"module.{name}": array for name, array in torch_state(network).items()}
    content = {place: tensors(state), "epoch": 3} if place else tensors(state)
    path, out = WRITERS[form](tmp_path / "w.pt", content), tmp_path / "w.pdparams"
    assert convert_weights.main([str(path), "-c", config, "-o", str(out)]) == 0

    again = evaluated(config)
    load_weights(again, load_checkpoint(out)["model"], out)
    x = np.random.RandomState(1).standard_normal((1, *channels, 32, 25, 2)).astype(np.float32)
    clips = clip_tensor_of(x)
    with paddle.no_grad():
        np.testing.assert_array_equal(again(clips).numpy(), network(clips).numpy())

    text = capsys.readouterr().out
    norms = sum(name.endswith("num_batches_tracked") for name in state)
    assert f"{path}: torch's {form} format, {len(state)} tensors" in text
    assert (f"tensors in '{place}'" in text) == bool(place)
    conv0 = 20 * (config == "1001")
    assert f"{len(state) - norms - conv0} prefix module. removed" in text
    assert f"{norms} ignored (BatchNorm counters" in text
    assert f"{2 * norms} BatchNorm statistics renamed" in text
    assert ("20 ignored (conv0" in text) == (config == "1001")
    assert f"-c {config} -e -pp {out}" in text


def test_golden_logits_of_torch(tmp_path: Path) -> None:
    """Weights by the golden arrays' rule, in a torch file: the logits are the reference's."""
    golden = np.load(Path(__file__).parent / "golden/stgcn_nturgbd.npz")
    network = evaluated("1001")
    randomise(network)
    path = write_zip(tmp_path / "w.pt", {"state_dict": tensors(torch_state(network))})
    again = evaluated("1001")
    load_weights(again, load_checkpoint(path)["model"], path)
    x = np.random.RandomState(1).standard_normal((2, 3, 32, 25, 2)).astype(np.float32)
    with paddle.no_grad():
        logits = again(clip_tensor_of(x)).numpy()
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5)


def test_weights_of_another_network_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch_state(evaluated("1001"))
    state["fcn.weight"] = state["fcn.weight"][:30]
    state["stray"] = state.pop("fcn.bias")
    path = write_zip(tmp_path / "w.pt", tensors(state))
    command = [str(path), "-c", "1001", "-o", str(tmp_path / "o.pdparams")]
    capsys.readouterr()  # drop complaints about log handlers that earlier tests have left
    assert run_command(lambda: convert_weights.main(command)) == 2
    error = capsys.readouterr().err
    assert "missing fcn.bias; unexpected stray; fcn.weight is [30, 256, 1, 1]" in error
    assert error.count("\n") == 1 and not (tmp_path / "o.pdparams").exists()


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    path = str(tmp_path / "w.pt")
    for output, message in (
        ("w.pth", "-o is 'w.pth'; allowed: a name that ends in .pdparams"),
        (str(tmp_path / "o.pdparams"), "w.pt: no such file of weights"),
    ):
        with pytest.raises(UserError, match=message):
            convert_weights.main([path, "-c", "1001", "-o", output])


@pytest.mark.parametrize("new", [True, False])
def test_files_that_torch_writes(tmp_path: Path, new: bool) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Sequential(torch.nn.Conv2d(2, 3, (5, 1)), torch.nn.BatchNorm2d(3))
    base = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    layer(torch.ones(2, 2, 7, 3)).sum().backward()
    optimizer.step()
    content = {
        "model": layer.state_dict(),
        "views": [base[:, 1:, ::2], base.transpose(0, 2), base.half(), base.bfloat16(), base > 3],
        "parameter": layer[0].weight,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "size": base.shape,
    }
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
    got, form = read_torch(tmp_path / "w.pt")
    assert form == ("zip" if new else "legacy")
    for name, value in content["model"].items():
        np.testing.assert_array_equal(got["model"][name], value.numpy())
    for array, value in zip(got["views"], content["views"]):
        np.testing.assert_array_equal(array, value.float().numpy())
    np.testing.assert_array_equal(got["parameter"], layer[0].weight.detach().numpy())
    moments = got["optimizer"]["state"][0]["momentum_buffer"]
    np.testing.assert_array_equal(moments, layer[0].weight.grad.numpy())
    assert got["scheduler"]["milestones"] == {2: 1, 4: 1} and got["size"] == (2, 3, 4)


def test_compressed_and_duplicate_members_are_refused(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.pt", ("a/data.pkl", b"\x80\x02]."))
    with pytest.raises(UserError, match="a compressed zip archive"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02].")
        archive.writestr("a/byteorder", bytes(10**7), zipfile.ZIP_BZIP2)
    with pytest.raises(UserError, match="a compressed zip archive"):  # before it is read
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data.pkl", b"\x80\x02].")
        archive.writestr("a/data.pkl", b"\x80\x02].")
    with pytest.raises(UserError, match="damaged zip archive: two members have the same name"):
        read_torch(path)
