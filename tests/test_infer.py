"""Static inference: infer.py, its output and its user errors, and the choice of an engine."""

from __future__ import annotations

import csv
import json
import pickle
import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from networks import network_of

import configs
import infer as infer_cli
from dataset.storage import open_clips
from deploy.engines.openvino_engine import OpenVINOEngine
from deploy.engines.paddle_engine import PaddleEngine
from deploy.meta import meta_path
from deploy.predictor import Predictor
from errors import UserError, run_command
from tests.processes import run_python
from tests.small_models import SMALL, eval_clips, logits_by_dygraph
from tools import merge_predictions


def test_empty_person_slots_are_not_run(models: Path, tiny_data: Path) -> None:
    clips = np.array(open_clips(eval_clips(tiny_data)).data[:3])
    clips[..., 1] = 0
    model = Predictor.load(models / "person/small.pdmodel", engine="paddle")
    sizes = []
    run = model.engine.run
    model.engine.run = lambda feeds, exclusive: sizes.append(len(feeds["clips"])) or run(feeds)
    model.run(clips)
    model.run(clips)
    assert sizes == [1, 3, 3], "the logits of an empty slot are computed once"


def infer(*argv: object) -> int:
    return run_command(lambda: infer_cli.main([str(a) for a in argv]))


def test_infer_prints_the_ports_lines(
    models: Path, tiny_data: Path, tmp_path: Path, capsys
) -> None:
    model, data = models / "person/small.pdmodel", eval_clips(tiny_data)
    output = tmp_path / "out.json"
    argv = ["--model_file", model, "--data_file", data, "-b", 10, "--topk", 3, "--output", output]
    assert infer(*argv) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("Batch action")]
    pattern = (
        r"Batch action class Predict: \[.*\] Batch action class True: \[.*\] "
        r"Batch Accuracy: [\d.]+ Batch sample Name: \['S00"
    )
    assert len(lines) == 3 and all(re.match(pattern, line) for line in lines)
    assert "Engine: openvino (auto)" in out
    clips = open_clips(data)
    expected = logits_by_dygraph(models, clips.data)
    accuracy = (expected.argmax(axis=1) == clips.labels).mean()
    assert f"Infer Mean Accuracy: {accuracy:.6g}\n" in out, "weighted by sample, not by batch"
    result = json.loads(output.read_text())
    assert result["accuracy"] == pytest.approx(accuracy) and len(result["clips"]) == 24
    for row, logits, name in zip(result["clips"], expected, clips.names):
        best = row["top"][0]
        assert row["name"] == name and best["class"] == logits.argmax() and len(row["top"]) == 3
        share = np.exp(logits - logits.max())
        assert best["probability"] == pytest.approx(share.max() / share.sum(), abs=1e-4)
        assert row["persons"] and row["label_name"]
    assert infer(*argv[:-1], tmp_path / "out.csv", "-np") == 0
    table = list(csv.reader((tmp_path / "out.csv").open()))
    assert len(table) == 25 and table[1][0] == clips.names[0]
    assert "Batch action" not in capsys.readouterr().out


def merge(*argv: object) -> int:
    return run_command(lambda: merge_predictions.main([str(a) for a in argv]))


def test_shards_merge_to_the_whole(models: Path, tiny_data: Path, tmp_path: Path, capsys) -> None:
    model, data = models / "person/small.pdmodel", eval_clips(tiny_data)
    argv = ["--model_file", model, "--data_file", data, "--engine", "openvino", "-np", "-b", 1]
    assert infer(*argv, "--output", tmp_path / "whole.json") == 0
    parts = [tmp_path / f"part{n}.json" for n in (1, 2, 3)]
    for n, part in enumerate(parts, 1):
        assert infer(*argv, "--shard", f"{n}/3", "--output", part) == 0
    capsys.readouterr()
    assert merge(*reversed(parts), "--output", tmp_path / "all.json") == 0
    assert (tmp_path / "all.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert f"Infer Mean Accuracy: {whole['accuracy']:.6g}" in capsys.readouterr().out
    assert merge(*parts, "--output", tmp_path / "all.csv") == 0
    assert len(list(csv.reader((tmp_path / "all.csv").open()))) == 25

    other = json.loads(parts[1].read_text())
    (tmp_path / "other.json").write_text(json.dumps({**other, "model": "another"}))
    (tmp_path / "again.json").write_text(json.dumps(other))
    (tmp_path / "cut.json").write_text(json.dumps({**other, "clips": other["clips"][1:]}))
    odd_rows = [None, {}, {**other["clips"][0], "top": []}, {**other["clips"][0], "top": [3]}]
    odd_rows += [{**other["clips"][0], **odd} for odd in ({"label": "1"}, {"persons": [{}]})]
    for n, odd in enumerate(odd_rows):
        clips = [*other["clips"][:3], odd, *other["clips"][4:]]
        (tmp_path / f"row{n}.json").write_text(json.dumps({**other, "clips": clips}))
    (tmp_path / "engine.json").write_text(json.dumps({**other, "engine": ["paddle"]}))
    (tmp_path / "shard.json").write_text(json.dumps({**other, "shard": [8, 4, 24]}))
    for files, message in (
        *(([tmp_path / f"row{n}.json"], "clips[3] is no prediction") for n in range(6)),
        ([tmp_path / "engine.json"], "engine, model and data must be texts"),
        ([tmp_path / "shard.json"], "shard is [8, 4, 24]; run that part again"),
        ([parts[0], parts[2]], "part3.json: clips 8 to 15 are missing"),
        (parts[:2], "clips 16 to 23 are missing: give every part"),
        ([*parts, tmp_path / "again.json"], "clips 8 to 15 come twice"),
        ([parts[0], tmp_path / "other.json"], "differ in model; merge parts of one run"),
        ([tmp_path / "cut.json"], "7 clips do not fit shard [8, 16, 24]"),
        ([model], "not UTF-8 text"),
        ([tmp_path / "none.json"], "cannot be read: No such file"),
    ):
        assert merge(*files, "--output", tmp_path / "bad.json") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "bad.json").exists()


def test_infer_without_labels_and_manifest(models: Path, tmp_path: Path, tiny_data, capsys) -> None:
    np.save(tmp_path / "x.npy", open_clips(eval_clips(tiny_data)).data[:3])
    assert (
        infer("--model_file", models / "whole/small.pdmodel", "--data_file", tmp_path / "x.npy")
        == 0
    )
    out = capsys.readouterr().out
    assert "no manifest.json" in out and "3 clips predicted; no labels" in out


@pytest.fixture
def short_data(tiny_data: Path, tmp_path: Path) -> Path:
    """Clips of 10 frames and 1 person, without labels; the model takes 16 frames and 2 persons."""
    data = tmp_path / "short.npy"
    np.save(data, open_clips(eval_clips(tiny_data)).data[:6, :, :10, :, :1])
    return data


def test_short_clips_of_one_person_are_predicted(
    models: Path, short_data: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """As clips that are padded by hand, whole and in shards; speed is measured on them too."""
    padded = np.zeros((6, 3, 16, 25, 2), np.float32)
    padded[:, :, :10, :, :1] = np.load(short_data)
    np.save(tmp_path / "padded.npy", padded)
    argv = ["--model_file", models / "person/small.pdmodel", "--engine", "openvino", "-b", 1]
    rows = []
    for name in ("short", "padded"):
        output = ["--output", tmp_path / f"{name}.json"]
        assert infer(*argv, "--data_file", tmp_path / f"{name}.npy", *output) == 0
        rows.append(json.loads(output[1].read_text())["clips"])
    assert rows[0] == rows[1] and len(rows[0]) == 6
    best = logits_by_dygraph(models, padded).argmax(axis=1)
    assert [row["top"][0]["class"] for row in rows[0]] == best.tolist()

    parts = [tmp_path / f"part{n}.json" for n in (1, 2)]
    for n, part in enumerate(parts, 1):
        shard = ["--shard", f"{n}/2", "--output", part]
        assert infer(*argv, "--data_file", short_data, *shard) == 0
    assert merge(*parts, "--output", tmp_path / "all.json") == 0
    assert (tmp_path / "all.json").read_bytes() == (tmp_path / "short.json").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr("deploy.speed.MAX_SECONDS", 0.0)
    assert infer(*argv, "--data_file", short_data, "--benchmark") == 0
    assert re.search(r"batch: 1 clips, .* clips/s", capsys.readouterr().out)


def test_clips_without_labels_print_no_accuracy(
    models: Path, short_data: Path, tmp_path: Path, capsys
) -> None:
    """Neither without a file of labels, nor where it holds names alone."""
    argv = ["--model_file", models / "whole/small.pdmodel", "--data_file", short_data]
    names = [f"walk{n}" for n in range(6)]
    for content in (None, (names, None), (names, None, [10] * 6)):
        if content:
            short_data.with_suffix(".pkl").write_bytes(pickle.dumps(content))
        for suffix in ("json", "csv"):
            assert infer(*argv, "--output", tmp_path / f"out.{suffix}") == 0
            out = capsys.readouterr().out
            assert "6 clips predicted; no labels, so no accuracy" in out
            assert "Accuracy" not in out and "True" not in out
        result = json.loads((tmp_path / "out.json").read_text())
        assert result["accuracy"] is None
        assert all(list(row) == ["name", "top"] for row in result["clips"])
        table = list(csv.DictReader((tmp_path / "out.csv").open()))
        expected = names if content else [f"clip-{n}" for n in range(6)]
        for rows in (result["clips"], table):
            assert [row["name"] for row in rows] == expected
        assert [row["label"] for row in table] == [""] * 6
        assert merge(tmp_path / "out.json", "--output", tmp_path / "all.csv") == 0
        assert "no labels, so no accuracy" in capsys.readouterr().out
    for labels, message in (
        ([0] * 5 + [-1], "label -1; allowed: 0 or more; without labels: None"),
    ):
        short_data.with_suffix(".pkl").write_bytes(pickle.dumps((names, labels)))
        assert infer(*argv) == 2 and message in capsys.readouterr().err


def test_other_units_than_metres_are_named(
    models: Path, tiny_data: Path, tmp_path: Path, capsys
) -> None:
    """Metres are taken at any distance from the camera, also with outliers and NaN-free gaps."""
    clips = np.array(open_clips(eval_clips(tiny_data)).data[:5])
    present = clips.any(axis=1, keepdims=True)
    far = np.where(present, clips + 10, 0)
    outlier = clips.copy()
    outlier[:, :, 3, 4] += 5000
    tall = np.where(present, 3 * clips, 0)
    pixels = np.where(present, 400 + 200 * clips, 0)
    pixels[:, 2:] = present * 0.9
    argv = ["--model_file", models / "whole/small.pdmodel", "--data_file", tmp_path / "x.npy"]
    for data in (far, outlier, tall, np.zeros_like(clips)):
        np.save(tmp_path / "x.npy", data)
        assert infer(*argv) == 0
    capsys.readouterr()
    clips[0] = 0  # an empty clip says nothing
    millimetres = "seem to be millimetres, and the model wants metres; divide them by 1000, or make"
    for data, message in (
        (1000 * clips, millimetres),
        (np.where(present, 1000 * clips + 3000, 0), millimetres),
        (1000 * clips, "main.py -gd --set dataset_args.keypoint.unit=millimetre"),
        (100 * clips, "seem to be centimetres, and the model wants metres; convert them"),
        (pixels, "seem to be pixels with scores"),
    ):
        np.save(tmp_path / "x.npy", data)
        for more in ([], ["--benchmark"], ["--shard", "2/2", "--output", tmp_path / "o.json"]):
            assert infer(*argv, *more) == 2
            error = capsys.readouterr().err
            assert f"{tmp_path / 'x.npy'}: the typical body size is " in error
            assert message in error and error.count("\n") == 1
    assert not (tmp_path / "o.json").exists()


def test_infer_refuses_data_of_the_other_kind(models: Path, tiny_data: Path, capsys) -> None:
    data = eval_clips(tiny_data, "transformed")
    assert infer("--model_file", models / "whole/small.pdmodel", "--data_file", data) == 2
    error = capsys.readouterr().err
    assert "transform is True, the model says False" in error
    assert (
        "python main.py -c 9001 -gd -d synthetic-xsub --set dataset_args.ntu.transform=false"
        in error
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model_file": "none.pdmodel"}, "none.pdmodel: no such file"),
        ({"--data_file": "none.npy"}, "none.npy: no such file"),
        ({"--params_file": "none.pdiparams"}, "none.pdiparams: no such file"),
        ({"--label_file": "none.pkl"}, "none.pkl: cannot be read"),
        ({"--output": "/proc/none/x.json"}, "cannot be written"),
        ({"--output": "x.txt"}, "ending in .json or .csv"),
        ({"-b": "0"}, "--batch_size is 0"),
        ({"--topk": "0"}, "--topk is 0"),
        ({"--inputs": "JV"}, "leave out"),
        ({"--shard": "0/2"}, "--shard is '0/2'; allowed: I/N"),
        ({"--shard": "1/2"}, "--shard 1/2 needs --output FILE.json"),
        ({"--use_gpu": None}, "a GPU was asked for"),
    ],
)
def test_wrong_arguments_are_one_line_errors(
    models: Path, tiny_data: Path, change: dict, message: str, capsys
) -> None:
    argv = {"--model_file": models / "whole/small.pdmodel", "--data_file": eval_clips(tiny_data)}
    flat = [part for pair in {**argv, **change}.items() for part in pair if part is not None]
    assert infer(*flat) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_wrong_data_is_refused_by_name(
    models: Path, tmp_path: Path, tiny_data: Path, capsys
) -> None:
    good = np.array(open_clips(eval_clips(tiny_data)).data[:3])
    nan = good.copy()
    nan[1, 0, 3, 4, 0] = np.inf
    model = models / "whole/small.pdmodel"
    for data, labels, message in (
        (nan, None, "clips 0 to 2: clip 1 of this batch holds NaN or infinity"),
        (good[..., [0, 1, 0]], None, "3 persons; the model wants (N, 3, T, 25, 2), or fewer"),
        (good[:, :, :, :20], None, "20 joints"),
        (good, ["a", "b", "c"], "label 12; the model has classes 0 to 11"),
    ):
        np.save(tmp_path / "x.npy", data)
        if labels:
            (tmp_path / "x.pkl").write_bytes(pickle.dumps((labels, [0, 1, 12])))
        assert infer("--model_file", model, "--data_file", tmp_path / "x.npy") == 2
        assert message in capsys.readouterr().err


def test_damaged_models_are_refused(models: Path, tmp_path: Path, tiny_data: Path) -> None:
    """In a subprocess: engines may end the process on such files."""
    whole = {s: (models / f"whole/small{s}").read_bytes() for s in (".pdmodel", ".pdiparams")}
    for suffix, content in (
        (".pdmodel", b""),
        (".pdmodel", b"\0" * 100),
        (".pdmodel", whole[".pdmodel"][:5000]),
        (".pdiparams", whole[".pdiparams"][:1000]),
    ):
        for name, good in whole.items():
            (tmp_path / f"m{name}").write_bytes(content if name == suffix else good)
        meta_path(tmp_path / "m").write_text(meta_path(models / "whole/small").read_text())
        argv = ["--model_file", tmp_path / "m.pdmodel", "--data_file", eval_clips(tiny_data)]
        done = run_python("infer.py", *argv, "--engine", "paddle")
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr[-500:]
        assert done.stderr.count("\n") == 1


class PortContract(paddle.nn.Layer):
    """The public port's static model: (N, I, C, T, V, M) in, (logits, feature) out."""

    def __init__(self, network: paddle.nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        n, i, c, t, v, m = x.shape
        clips = x.transpose([0, 5, 4, 1, 2, 3]).reshape([n, m * v, i * c, t])
        return self.network.with_feature(clips)


def test_the_public_ports_models_run_too(
    models: Path, tmp_path: Path, tiny_data: Path, capsys
) -> None:
    config = configs.load("9001", {**SMALL, "pretrained_path": str(models / "small.pdparams")})
    network = network_of(config)
    network.eval()
    spec = [paddle.static.InputSpec([4, 3, 6, 16, 25, 2], "float32")]
    paddle.jit.save(PortContract(network), str(tmp_path / "port"), spec)
    data = open_clips(eval_clips(tiny_data)).data[:7]
    model = Predictor.load(tmp_path / "port.pdmodel", engine="paddle", cpu_threads=1)
    expected = logits_by_dygraph(models, data)
    np.testing.assert_allclose(model.run(data).logits, expected, atol=1e-4)
    argv = ["--model_file", tmp_path / "port.pdmodel", "--data_file", eval_clips(tiny_data)]
    assert infer(*argv) == 0 and "Infer Mean Accuracy" in capsys.readouterr().out
    assert infer(*argv, "--inputs", "JV") == 2
    assert "takes [4, 3, 6, 16, 25, 2]" in capsys.readouterr().err


def test_auto_logs_why_an_engine_is_skipped(models: Path, monkeypatch, caplog) -> None:
    """An engine whose outputs are NaN is skipped too."""

    def absent(self, model_file, params_file, cpu_threads: int) -> None:
        raise UserError("not in this build")

    run = PaddleEngine.run

    def nan(self, feeds, *, exclusive: bool = True):
        outputs = run(self, feeds)
        return [np.nan * o for o in outputs] if self.name == "paddle_openvino" else outputs

    monkeypatch.setattr(OpenVINOEngine, "__init__", absent)
    monkeypatch.setattr(PaddleEngine, "run", nan)
    with caplog.at_level("INFO"):
        predictor = Predictor.load(models / "whole/small.pdmodel")
    assert predictor.engine.name == "paddle"
    assert "openvino does not run it (not in this build)" in caplog.text
    assert "paddle_openvino does not run it (it gives NaN for a clip of zeros)" in caplog.text


def test_benchmark_line(models: Path, tiny_data: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("deploy.speed.MAX_SECONDS", 0.0)
    argv = ["--model_file", models / "person/small.pdmodel", "--data_file", eval_clips(tiny_data)]
    assert infer(*argv, "--benchmark", "--engine", "paddle", "--cpu_threads", 2, "-b", 4) == 0
    pattern = (
        r"Engine: paddle, threads: 2, batch: 4 clips, warm-up: \d+ ms, latency median: [\d.]+ ms, "
        r"95th percentile: [\d.]+ ms \(8 runs\), [\d.]+ clips/s"
    )
    assert re.search(pattern, capsys.readouterr().out)


def test_openvino_answers_without_importing_paddle(models: Path, tiny_data: Path) -> None:
    """Importing Paddle takes longer than the rest of the start-up."""
    argv = ["--model_file", models / "person/small.pdmodel", "--data_file", eval_clips(tiny_data)]
    code = "import sys, infer; infer.main(sys.argv[1:]); assert 'paddle' not in sys.modules"
    done = run_python("-c", code, *argv, "-np")
    assert done.returncode == 0, done.stderr
    assert "Engine: openvino (auto)" in done.stdout and "Infer Mean Accuracy" in done.stdout
