"""Kinds of files that users hand in, each with whole examples, mutations, and the command that
reads them. For tests/test_fuzz_kinds.py: a `Random` determines everything."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz_cases import (
    Mutation,
    any_bytes,
    hostile_labels,
    label_opcodes,
    npy_header,
    replaced_file,
)

ODD: list[Any] = [
    *(None, True, False, -1, 0, 3, 10**30, 1e308, float("nan"), float("inf"), 0.5, "", "7", "1_0"),
    *("x" * 2000, "a\nb\x1b[2J", "../../x", "a\0b", "$\\frac{1", "=1+1", "١٢", [], {}, [[]] * 3),
    *({"a": {"b": []}}, [0] * 50, ["a", 1], -0.0, 2**63, "\u2028", "\ud800"),
]


@dataclass(frozen=True)
class Kind:
    """make: writes whole files into a folder. files: the name of each that is mutated, and how.
    read: the command on the folder, which returns the exit code. finish: what comes after the
    mutation, such as new checksums."""

    make: Callable[[Path], None]
    files: Mapping[str, list[Mutation]]
    read: Callable[[Path, random.Random], int]
    finish: Callable[[Path], None] = lambda folder: None


def changed(rng: random.Random, value: Any) -> Any:
    """A tree of lists and dicts with one of its values replaced, dropped, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        what = rng.randrange(12)
        if what == 0:
            return {k: v for k, v in value.items() if k != key}
        if what == 1:
            return {**value, rng.choice(["x", "", "\ud800", "a\nb", "__class__"]): value[key]}
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        what = rng.randrange(12)
        if what == 0:
            return value[:at] + value[at + 1 :]
        if what == 1:
            return value[:at] + value[at : at + 1] * rng.choice((2, 50)) + value[at:]
        return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
    return rng.choice(ODD)


def json_value(rng: random.Random, path: Path) -> None:
    tree = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(rng.choice((1, 1, 3))):
        tree = changed(rng, tree)
    path.write_text(json.dumps(tree), encoding="utf-8")


def json_text(rng: random.Random, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    at = rng.randrange(len(text))
    odd = ['{"a": ' * 2000, "[" * 5000, "NaN", "1e999", "9" * 6000, '"', ",", "//x", "\\ud800"]
    path.write_text(text[:at] + rng.choice(odd) + text[at:], encoding="utf-8")


def yaml_tree(rng: random.Random, path: Path) -> None:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for _ in range(rng.choice((1, 1, 3))):
        tree = changed(rng, tree)
    text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))


def table_cell(rng: random.Random, path: Path) -> None:
    """Another cell, a line more or less, another number of cells."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.randrange(len(lines))
    cells = lines[at].split(",")
    what = rng.randrange(6)
    if what <= 2:
        cells[rng.randrange(len(cells))] = str(rng.choice(ODD))
        lines[at] = ",".join(cells)
    elif what == 3:
        lines[at] = ",".join(cells[:-1] if rng.random() < 0.5 else [*cells, "1"])
    elif what == 4:
        del lines[at]
    else:
        lines[at:at] = [rng.choice(["", '"', "\0", "," * 100, "a,b", lines[at]])] * 3
    text = rng.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines)
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))


def skeleton_number(rng: random.Random, path: Path) -> None:
    """Another word in a text of numbers."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.randrange(min(len(lines), 60))
    words = lines[at].split() or [""]
    what = rng.randrange(4)
    if what == 0:
        words[rng.randrange(len(words))] = str(rng.choice(ODD))
    elif what == 1:
        words[rng.randrange(len(words))] = rng.choice(("-5", "99999", "1e39", "nan", "1_0", "0x1"))
    elif what == 2:
        words = words[:-1]
    else:
        words.append("1.5")
    lines[at] = " ".join(words)
    path.write_bytes("\n".join(lines).encode("utf-8", errors="surrogatepass"))


def zip_members(rng: random.Random, path: Path) -> None:
    """Another method, name, size or number of the members of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    names = list(members)
    with zipfile.ZipFile(path, "w", rng.choice((method, zipfile.ZIP_LZMA))) as archive:
        for name in names:
            if rng.random() < 0.1:
                continue
            odd = rng.random() < 0.2
            content = rng.choice((b"", b"0" * 2**24, rng.randbytes(100))) if odd else members[name]
            archive.writestr(name, content)
        if rng.random() < 0.3:
            again = rng.choice(("../../evil.skeleton", "/abs.skeleton", "a\0b.skeleton"))
            archive.writestr(again, b"1")
    content = bytearray(path.read_bytes())
    if rng.random() < 0.4:  # sizes of a member in the central directory
        at = content.rfind(b"PK\1\2")
        content[at + 20 : at + 28] = rng.choice((b"\xff" * 8, b"\0" * 8, rng.randbytes(8)))
        path.write_bytes(content)


def npy_values(rng: random.Random, path: Path) -> None:
    array = np.load(path)
    what = rng.randrange(6)
    if what == 0:
        array = array.astype(rng.choice(("f8", "f2", "i4", "c8", "?", "U5")))
    elif what == 1:
        array = np.delete(array, 0, axis=rng.randrange(array.ndim))
    elif what == 2:
        array = np.repeat(array, 3, axis=rng.randrange(array.ndim))
    elif what == 3:
        array = array * np.float32(rng.choice((0, -1, 1e-38, 1e8, 1e38)))
    elif what == 4:
        array = array.transpose(rng.sample(range(array.ndim), array.ndim))
    else:
        array.reshape(-1)[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, 3e38, 1e10))
    np.save(path, array)


def npz_arrays(rng: random.Random, path: Path) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    name = rng.choice(sorted(arrays))
    what = rng.randrange(5)
    if what == 0:
        del arrays[name]
    elif what == 1:
        arrays[name] = arrays[name][:-1] if arrays[name].ndim else arrays[name].astype("U3")
    elif what == 2:
        arrays[name] = arrays[name].astype("U9")
    elif what == 3:
        arrays[name] = np.array(rng.choice(('{"a": 1', "[]", '{"class_names": 3}', "x" * 999)))
    else:
        arrays["more"] = np.zeros(rng.choice((0, 10**6)))
    rng.choice((np.savez, np.savez_compressed))(path, **arrays)


# --- static models -------------------------------------------------------------------------------


def _export(folder: Path, *options: str) -> None:
    import configs
    import export
    from tests.small_models import SET, SMALL, write_weights

    folder.mkdir(parents=True, exist_ok=True)
    write_weights(configs.load("9001", SMALL), folder / "m.pdparams")
    argv = ["-c", "9001", "-pp", str(folder / "m.pdparams"), *SET, "--save_dir", str(folder)]
    assert export.main([*argv, *options]) == 0
    np.save(folder / "x.npy", _clips())


def _clips() -> np.ndarray:
    rng = np.random.RandomState(0)
    return rng.uniform(-1, 1, (2, 3, 16, 25, 2)).astype(np.float32)


def _proto(rng: random.Random, path: Path) -> None:
    """One attribute, shape, name or operator of a .pdmodel changed."""
    from deploy.engines.program_check import read_paddle

    program = read_paddle(path)
    block = program.blocks[0]
    op = rng.choice(block.ops)
    what = rng.randrange(7)
    if what == 0 and op.attrs:
        attribute = rng.choice(op.attrs)
        for name in ("i", "l"):
            if attribute.HasField(name):
                setattr(attribute, name, rng.choice((0, -1, 2, 2**31 - 1, 99)))
        for name in ("ints", "longs"):
            values = getattr(attribute, name)
            if values:
                values[rng.randrange(len(values))] = rng.choice((0, -1, 3, 2**31 - 1))
    elif what == 1:
        op.type = rng.choice(block.ops).type
    elif what == 2 and op.inputs:
        arguments = rng.choice(op.inputs).arguments
        arguments[:] = [rng.choice(block.vars).name] * rng.choice((0, 1, 2))
    elif what == 3:
        var = rng.choice([v for v in block.vars if v.type.HasField("dense_tensor")])
        dims = var.type.dense_tensor.tensor.dims
        if dims:
            dims[rng.randrange(len(dims))] = rng.choice((0, -1, 1, 7, 2**40))
    elif what == 4:
        block.ops.remove(op)
    elif what == 5:
        del block.vars[rng.randrange(len(block.vars))]
    else:
        op.attrs.pop() if op.attrs else op.inputs.pop()
    path.write_bytes(program.SerializeToString())


def _pir(rng: random.Random, path: Path) -> None:
    tree = json.loads(path.read_text(encoding="utf-8"))
    ops = tree["program"]["regions"][0]["blocks"][0]["ops"]
    at = rng.randrange(len(ops))
    ops[at] = changed(rng, ops[at])
    path.write_text(json.dumps(tree), encoding="utf-8")


def _onnx(rng: random.Random, path: Path) -> None:
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    node = rng.choice(graph.node)
    what = rng.randrange(7)
    if what == 0 and node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.i = rng.choice((0, -1, 2**62))
        if attribute.ints:
            attribute.ints[0] = rng.choice((0, -1, 2**40))
    elif what == 1:
        node.op_type = rng.choice(graph.node).op_type
    elif what == 2 and node.input:
        node.input[0] = rng.choice(("", "none", rng.choice(graph.node).output[0]))
    elif what == 3 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        if tensor.dims:
            tensor.dims[0] = rng.choice((0, -1, 7, 2**40))
    elif what == 4:
        graph.node.remove(node)
    elif what == 5 and graph.initializer:
        rng.choice(graph.initializer).raw_data = rng.randbytes(rng.choice((0, 3, 100)))
    else:
        shape = graph.input[0].type.tensor_type.shape
        rng.choice(shape.dim).dim_value = rng.choice((0, 7, 2**40))
    path.write_bytes(model.SerializeToString())


def _new_checksums(folder: Path) -> None:
    """Whoever changes a model can also change its metadata."""
    from deploy.meta import CHECKSUM, _checksum
    from safe_io import file_hash

    path = folder / "m.meta.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    program = next(f for f in (folder / "m.pdmodel", folder / "m.json") if f.exists())
    tree["program_sha256"] = file_hash(program)
    tree["params_sha256"] = file_hash(folder / "m.pdiparams")
    tree[CHECKSUM] = _checksum({k: v for k, v in tree.items() if k != CHECKSUM})
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def _new_checksum_of_onnx(folder: Path) -> None:
    import onnx

    from deploy.meta import CHECKSUM, _checksum
    from deploy.onnx_file import model_hash

    try:
        model = onnx.load_model_from_string((folder / "m.onnx").read_bytes())
        tree = {p.key: json.loads(p.value) for p in model.metadata_props}
    except Exception:  # too damaged to have any
        return
    tree["program_sha256"] = model_hash(model)
    tree[CHECKSUM] = _checksum({k: v for k, v in tree.items() if k != CHECKSUM})
    del model.metadata_props[:]
    for key, value in tree.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    (folder / "m.onnx").write_bytes(model.SerializeToString())


def _infer(model: str, *engines: str) -> Callable[[Path, random.Random], int]:
    def read(folder: Path, rng: random.Random) -> int:
        import infer
        from errors import run_command

        argv = ["--model_file", str(folder / model), "--data_file", str(folder / "x.npy"), "-np"]
        argv += ["--engine", rng.choice(engines), "--cpu_threads", "1", "--no_cpu_setup"]
        return run_command(lambda: infer.main([*argv, "--output", str(folder / "out.json")]))

    return read


# --- weights -------------------------------------------------------------------------------------


def _make_weights(folder: Path) -> None:
    import configs
    from tests.small_models import SMALL, write_weights

    write_weights(configs.load("9001", SMALL), folder / "m.pdparams")


def _load_weights(folder: Path, rng: random.Random) -> int:
    import configs
    from dataset.protocols import data_spec
    from errors import run_command
    from tests.small_models import SMALL
    from training.checkpoint import load_network

    config = configs.load("9001", {**SMALL, "pretrained_path": str(folder / "m.pdparams")})
    spec = data_spec(config.dataset, config.data.own_layout)
    return run_command(lambda: load_network(config, spec) and 0 or 0)


def _make_torch(folder: Path) -> None:
    from tests import torch_files

    rng = np.random.RandomState(0)
    arrays = {f"layer{n}.weight": rng.standard_normal((4, 3)).astype("f4") for n in range(6)}
    for form, write in torch_files.WRITERS.items():
        write(folder / f"{form}.pt", {"state_dict": torch_files.tensors(arrays), "epoch": 3})


def _read_torch(folder: Path, rng: random.Random) -> int:
    from errors import run_command
    from training.checkpoint import load_checkpoint

    def read() -> int:
        for file in sorted(folder.glob("*.pt")):
            load_checkpoint(file)
        return 0

    return run_command(read)


# --- recordings ----------------------------------------------------------------------------------


def _generate(folder: Path, name: str, keys: Mapping[str, Any], **settings: Any) -> int:
    import configs
    from errors import run_command
    from generator import generate

    def run() -> int:
        generate(configs.load(name, {**keys, **settings}), workers=1, progress=False)
        for file in folder.glob("out/**/*_data.npy"):
            assert np.isfinite(np.load(file)).all()
        return 0

    return run_command(run)


def _make_ntu(folder: Path) -> None:
    from tests.skeleton_text import random_frames, skeleton_text

    text = skeleton_text(random_frames(np.random.default_rng(0), 6, 1))
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nturgb/S001C001P001R001A001.skeleton", text)
        archive.writestr("nturgb/S001C002P002R001A002.skeleton", text)
    (folder / "S001C001P003R001A003.skeleton").write_bytes(text)


def _read_ntu(folder: Path, rng: random.Random) -> int:
    keys = {
        "dataset_args.ntu.root_folder": str(folder / "out"),
        "dataset_args.ntu.ntu60_path": str(folder),
    }
    return _generate(folder, "2001", keys)


def _make_kinetics(folder: Path) -> None:
    from tests.test_kinetics_reader import some_clips, write_half

    write_half(folder, "kinetics_train", some_clips("a", "b"))
    write_half(folder, "kinetics_val", some_clips("c"))


def _read_kinetics(folder: Path, rng: random.Random) -> int:
    keys = {
        "dataset_args.kinetics.root_folder": str(folder / "out"),
        "dataset_args.kinetics.source_path": str(folder),
    }
    return _generate(folder, "1002", keys)


def _make_own(folder: Path) -> None:
    from tests.keypoint_data import body, four_clips, write_folder

    arrays, rows = four_clips()
    np.savetxt(folder / "walk.csv", body(9).reshape(8, -1), delimiter=",")
    write_folder(folder, arrays, [*rows, ("walk.csv", 1, "train")])


def _read_own(folder: Path, rng: random.Random) -> int:
    from errors import run_command
    from generator import generate
    from tests.keypoint_data import keypoint_config

    def run() -> int:
        config = keypoint_config(folder, folder / "out", first_label=0)
        generate(config, workers=1, progress=False)
        return 0

    return run_command(run)


# --- generated data ------------------------------------------------------------------------------


def _make_data(folder: Path) -> None:
    import configs
    from dataset.synthetic.recordings import write_recordings
    from generator import generate
    from tests.small_models import SMALL

    _export(folder)
    write_recordings(folder / "recordings", subjects=(1, 2), cameras=(2,))
    keys = {
        **SMALL,
        "dataset_args.ntu.root_folder": str(folder / "npy"),
        "dataset_args.ntu.synthetic_path": str(folder / "recordings"),
    }
    generate(configs.load("9001", keys), workers=1, progress=False)


def _read_data(folder: Path, rng: random.Random) -> int:
    """A smaller set of them, which a model then predicts."""
    import infer
    from dataset import tiny_data_gen
    from errors import run_command

    data, tiny = folder / DATA, folder / "tiny"
    argv = ["--source_path", str(data), "--save_dir", str(tiny), "--data_num", "4"]
    if code := run_command(lambda: tiny_data_gen.main(argv)):
        return code
    files = ["--model_file", str(folder / "m.pdmodel"), "--data_file", str(tiny / "eval_data.npy")]
    return run_command(lambda: infer.main([*files, "-np", "--cpu_threads", "1", "--no_cpu_setup"]))


# --- settings, predictions, scores ---------------------------------------------------------------


def _make_settings(folder: Path) -> None:
    import configs
    from dataset.skeletons import skeleton, to_mapping

    text = configs.dump(configs.load("2001"))
    (folder / "run.yaml").write_text(text)
    layout = yaml.safe_dump(to_mapping(skeleton("coco-17")), sort_keys=False)
    (folder / "layout.yaml").write_text(layout)


def _read_settings(folder: Path, rng: random.Random) -> int:
    import configs
    from dataset.skeletons import skeleton
    from errors import run_command

    def read() -> int:
        configs.load(str(folder / "run.yaml"))
        skeleton(str(folder / "layout.yaml"))
        return 0

    return run_command(read)


def _make_predictions(folder: Path) -> None:
    top = [{"class": n, "name": "ab"[n], "probability": p} for n, p in ((1, 0.7), (0, 0.3))]
    for part in (0, 1):
        rows = [
            {"name": f"clip{2 * part + n}", "label": n, "label_name": "ab"[n], "top": top}
            for n in (0, 1)
        ]
        tree = {"engine": "paddle", "model": "ab" * 32, "data": "x.npy"}
        tree.update(shard=[2 * part, 2 * part + 2, 4], accuracy=0.5, clips=rows)
        (folder / f"part{part}.json").write_text(json.dumps(tree))


def _merge(folder: Path, rng: random.Random) -> int:
    from errors import run_command
    from tools.merge_predictions import main

    files = [str(folder / f"part{n}.json") for n in (0, 1)]
    output = str(folder / rng.choice(("out.json", "out.csv")))
    return run_command(lambda: main([*files, "--output", output]))


def _make_scores(folder: Path) -> None:
    from report import ClipScores, save_scores

    for n in (0, 1):
        rng = np.random.RandomState(n)
        names = np.array([f"clip{k}" for k in range(6)])
        about = {"dataset": "mine", "class_names": ["a", "b", "c"], "weights_sha256": str(n)}
        logits = rng.standard_normal((6, 3))
        save_scores(folder / f"{n}.npz", ClipScores(names, np.arange(6) % 3, logits, about))


def _fuse(folder: Path, rng: random.Random) -> int:
    from errors import run_command
    from tools.fuse_scores import main

    argv = [str(folder / "0.npz"), str(folder / "1.npz"), "--output", str(folder / "out.npz")]
    return run_command(lambda: main(argv))


DATA = "npy/original/synthetic-xsub"
BYTES = [any_bytes, any_bytes, replaced_file]
KINDS: dict[str, Kind] = {
    "pdmodel": Kind(
        _export,
        {"m.pdmodel": [_proto, _proto, _proto, any_bytes]},
        _infer("m.pdmodel", "auto", "paddle", "openvino", "onednn"),
        _new_checksums,
    ),
    "pdiparams": Kind(
        _export, {"m.pdiparams": [any_bytes]}, _infer("m.pdmodel", "auto"), _new_checksums
    ),
    "json": Kind(
        lambda folder: _export(folder, "--format", "json"),
        {"m.json": [_pir, _pir, _pir, json_text, any_bytes]},
        _infer("m.json", "paddle"),
        _new_checksums,
    ),
    "onnx": Kind(
        lambda folder: _export(folder, "--format", "onnx"),
        {"m.onnx": [_onnx, _onnx, _onnx, any_bytes]},
        _infer("m.onnx", "auto", "openvino", "onnxruntime"),
        _new_checksum_of_onnx,
    ),
    "pdparams": Kind(
        _make_weights, {"m.pdparams": [*BYTES, label_opcodes, hostile_labels]}, _load_weights
    ),
    "torch": Kind(
        _make_torch,
        {"zip.pt": [*BYTES, zip_members], "legacy.pt": [*BYTES, hostile_labels]},
        _read_torch,
    ),
    "ntu": Kind(
        _make_ntu,
        {
            "a.zip": [*BYTES, zip_members, zip_members],
            "S001C001P003R001A003.skeleton": [*BYTES, skeleton_number, skeleton_number],
        },
        _read_ntu,
    ),
    "kinetics": Kind(
        _make_kinetics,
        {
            "kinetics_train_label.json": [any_bytes, json_value, json_text],
            "kinetics_train/a.json": [*BYTES, json_value, json_value, json_text],
        },
        _read_kinetics,
    ),
    "own": Kind(
        _make_own,
        {
            "index.csv": [*BYTES, table_cell, table_cell],
            "train0.npy": [*BYTES, npy_header, npy_values],
            "walk.csv": [*BYTES, table_cell, table_cell],
        },
        _read_own,
    ),
    "data": Kind(
        _make_data,
        {
            f"{DATA}/manifest.json": [any_bytes, json_value, json_value, json_value, json_text],
            f"{DATA}/eval_label.pkl": [any_bytes, label_opcodes, hostile_labels],
        },
        _read_data,
    ),
    "settings": Kind(
        _make_settings,
        {"run.yaml": [*BYTES, yaml_tree, yaml_tree], "layout.yaml": [*BYTES, yaml_tree, yaml_tree]},
        _read_settings,
    ),
    "predictions": Kind(
        _make_predictions, {"part1.json": [*BYTES, json_value, json_value, json_text]}, _merge
    ),
    "scores": Kind(_make_scores, {"1.npz": [*BYTES, zip_members, npz_arrays, npz_arrays]}, _fuse),
}
