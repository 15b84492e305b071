"""Export: the files, the checks, and that every engine gives the logits of dygraph."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

import configs
import export as export_cli
import main as main_cli
from configs.model import ATT_TYPES
from dataset.pipeline import ClipPipeline
from dataset.protocols import data_spec
from dataset.storage import open_clips
from deploy.engines.engine import CPU_ENGINES
from deploy.engines.paddle_engine import PaddleEngine
from deploy.exporting.contracts import ExportOptions
from deploy.exporting.export import export_network, publish
from deploy.exporting.formats import FORMATS
from deploy.exporting.graph_check import inspect_program
from deploy.exporting.static_export import write_static
from deploy.meta import StaticMeta, meta_path
from deploy.predictor import Predictor
from errors import UserError, run_command
from tests.networks import network_of
from tests.small_models import SET, SMALL, eval_clips, logits_by_dygraph


@pytest.mark.parametrize("engine", CPU_ENGINES[".pdmodel"])
@pytest.mark.parametrize("name", ["whole", "person", "fixed", "feature"])
def test_every_engine_and_form_equals_dygraph(
    models: Path, tiny_data: Path, engine: str, name: str
) -> None:
    """Clips of one and of two persons; 7 clips are no multiple of the static batch size."""
    data = open_clips(eval_clips(tiny_data)).data
    clips = np.concatenate([data[:4], data[-3:]])
    exists = clips.any(axis=(1, 2, 3))
    assert exists.all(axis=1).any() and not exists.all()
    expected = logits_by_dygraph(models, clips)
    model = Predictor.load(models / name / "small.pdmodel", engine=engine)
    scores = model.run(clips)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(scores.logits, expected, atol=2e-5 * scale)
    np.testing.assert_array_equal(scores.exists, exists)
    assert (scores.person_logits is not None) == model.per_person
    if name == "feature":
        tensors = np.zeros((3, 50, 18, 16), np.float32)
        logits, feature = model.engine.run({"clips": tensors})
        assert logits.shape == (3, 12) and feature.shape == (6, 16, 8, 25)


def test_program_is_4d_and_folded(models: Path) -> None:
    facts = inspect_program(models / "whole/small.pdmodel")
    assert facts.max_rank == 4 and not facts.problems
    assert facts.ops["conv2d"] > 20 and "batch_norm" not in facts.ops and "dropout" not in facts.ops
    assert sorted(p.name for p in (models / "whole").iterdir()) == [
        "small.meta.yaml",
        "small.pdiparams",
        "small.pdmodel",
    ]


def test_a_5d_einsum_program_is_caught(tmp_path: Path) -> None:
    class FiveD(paddle.nn.Layer):
        def forward(self, clips):
            return paddle.einsum("nctv,vw->nctw", clips, paddle.ones([25, 25])).unsqueeze(0)

    spec = [paddle.static.InputSpec([2, 3, 4, 25], "float32")]
    paddle.jit.save(FiveD(), str(tmp_path / "m"), spec)
    problems = " ".join(inspect_program(tmp_path / "m.pdmodel").problems)
    assert "rank 5" in problems and "einsum" in problems


def test_export_above_the_tolerance_fails_and_leaves_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def wrong(layer, target, shapes):
        with paddle.no_grad():
            bias = layer.network.classifier.fc.bias
            bias.set_value(bias + 1.0)
        write_static(layer, target, shapes)

    monkeypatch.setattr("deploy.exporting.export.write_static", wrong)
    argv = ["-c", "9001", "-pp", str(models / "small.pdparams"), *SET]
    code = run_command(lambda: export_cli.main([*argv, "--save_dir", str(tmp_path / "out")]))
    assert code == 2 and "differs from the network by 1.00e+00" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", [0, 1])
def test_no_wrong_output_passes_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, output: int
) -> None:
    """Random weights give tiny logits: zeros must not pass as equal, and neither must a wrong
    feature beside correct logits."""
    run = PaddleEngine.run

    def zeros(self, feeds):
        return [0 * o if n == output else o for n, o in enumerate(run(self, feeds))]

    monkeypatch.setattr(PaddleEngine, "run", zeros)
    argv = ["-c", "9001", *SET, "--with_feature", "--save_dir", tmp_path / "out"]
    assert run_command(lambda: export_cli.main([str(a) for a in argv])) == 2
    assert ("logits", "feature")[output] in capsys.readouterr().err


def test_export_changes_no_network(tmp_path: Path) -> None:
    """A session evaluates on with the network that it has exported, here by person."""
    config = configs.load("9001", SMALL)
    network = network_of(config)
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    spec = data_spec(config.dataset, config.data.own_layout)
    program = export_network(network, config, spec, ExportOptions(per_person=True), tmp_path)
    assert program == tmp_path / "9001_fresh.pdmodel" and program.is_file()
    assert network.training and network.persons == 2
    after = network.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].numpy(), value)


EXPORTABLE = [["-c", "1001", "--set", "dataset_args.ntu.num_frame=16"], ["-c", "4201"]]
EXPORTABLE += [
    ["-c", "9001", *SET, f"model_args.att_type={t}"] for t in ATT_TYPES if t not in ("stja", "none")
]
EXPORTABLE += [
    ["-c", "9001", *SET, f"model_args.layer_type={t}", "model_args.att_type=none"]
    for t in ("Basic", "Bottleneck", "Sep")
]


@pytest.mark.slow
@pytest.mark.parametrize("argv", EXPORTABLE, ids=lambda argv: argv[-1])
def test_every_network_exports(tmp_path: Path, argv: list[str], capsys) -> None:
    """Rank 4, folded, equal on every engine, logits and feature: export itself checks it."""
    assert export_cli.main([*argv, "--with_feature", "--save_dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "largest rank 4" in out and out.count("Largest difference") == 2 * len(
        CPU_ENGINES[".pdmodel"]
    )


def test_export_into_a_file_is_refused(models: Path, capsys) -> None:
    argv = ["-c", "9001", *SET, "--save_dir", str(models / "small.pdparams")]
    assert run_command(lambda: export_cli.main(argv)) == 2
    assert "is a file; allowed: a folder" in capsys.readouterr().err


@pytest.mark.parametrize("kills_at", [1, 2, 3])
def test_a_killed_publication_mixes_no_models(tmp_path: Path, monkeypatch, kills_at: int) -> None:
    """Whichever rename is the last, no file of an older model lies beside one of the new model."""

    class Killed(BaseException):
        pass

    draft, target = tmp_path / "draft/m", tmp_path / "m"
    for path, text in ((draft, "new"), (target, "old")):
        path.parent.mkdir(exist_ok=True)
        for suffix in (".pdmodel", ".pdiparams", ".meta.yaml"):
            Path(f"{path}{suffix}").write_text(text)
    rename, calls = os.replace, []

    def stop(source: str, final: str) -> None:
        calls.append(final)
        if len(calls) == kills_at:
            raise Killed
        rename(source, final)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(Killed):
        publish(draft, target, FORMATS["paddle"].files)
    left = {path.name: path.read_text() for path in tmp_path.glob("m.*")}
    assert left == dict.fromkeys(["m.pdiparams", "m.pdmodel"][: kills_at - 1], "new")


def test_meta_file(models: Path, tmp_path: Path) -> None:
    file = meta_path(models / "fixed/small.pdmodel")
    meta = StaticMeta.load(file)
    assert (meta.dataset, meta.persons) == ("synthetic-xsub", 1)
    assert meta.clip_pipeline() == ClipPipeline("JVB", num_frame=16)
    assert (meta.batch_size, meta.per_person, meta.transform) == (5, True, False)
    assert len(meta.class_names) == 12 and len(meta.weights_sha256) == 64
    tree = yaml.safe_load(file.read_text())
    for change, message in (
        ({"batch_size": "16"}, "batch_size is '16'; allowed: int"),
        ({"class_names": [1]}, "class_names"),
        ({"persons": True}, "persons is True"),
        ({"extra": 1}, "unknown keys: extra"),
        ({"format": 9}, "format 9"),
        ({"batch_size": 24}, "m.yaml: was changed after export"),
        ({"skeleton": {**tree["skeleton"], "origin": 2}}, "was changed after export"),
        ({"skeleton": {1: 2, "a": 3}}, "was changed after export"),
        ({"checksum": None}, "was changed after export"),
    ):
        (tmp_path / "m.yaml").write_text(yaml.safe_dump({**tree, **change}))
        with pytest.raises(UserError, match=message):
            StaticMeta.load(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not readable"):
        StaticMeta.load(tmp_path / "m.yaml")


def test_main_extract_and_random_weights(models: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    weights = tmp_path / "w.pdparams"
    weights.write_bytes((models / "small.pdparams").read_bytes())
    assert main_cli.main(["-c", "9001", "-ex", "-pp", str(weights), *SET]) == 0
    assert (tmp_path / "w.pdmodel").is_file() and (tmp_path / "w.meta.yaml").is_file()
    monkeypatch.chdir(tmp_path)
    assert export_cli.main(["-c", "9001", *SET, "-d", "ntu-xsub"]) == 0
    assert "random weights" in capsys.readouterr().out
    assert StaticMeta.load(tmp_path / "9001_fresh.meta.yaml").class_names[0] == "drink water"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/own.yaml").write_text("base: 9001")
    assert export_cli.main(["-c", "sub/own.yaml", *SET]) == 0
    assert (tmp_path / "own_fresh.pdmodel").is_file()
    again = run_command(lambda: export_cli.main(["-c", "9001", *SET, "--batch_size", "-1"]))
    assert again == 2


def test_a_model_and_another_ones_meta_are_refused(models: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.pdmodel"
    whole = {s: (models / f"whole/small{s}").read_bytes() for s in (".pdmodel", ".pdiparams")}
    meta_path(target).write_text(meta_path(models / "person/small").read_text())
    for suffix, content in whole.items():
        (tmp_path / f"m{suffix}").write_bytes(content)
    with pytest.raises(UserError, match="m.pdmodel: was changed .* or belongs to another model"):
        Predictor.load(target, engine="paddle")
    meta = StaticMeta.load(meta_path(models / "whole/small"))
    meta.save(meta_path(target))
    (tmp_path / "m.pdiparams").write_bytes(whole[".pdiparams"][:-1] + b"\0")
    with pytest.raises(UserError, match="m.pdiparams: was changed .* export again"):
        Predictor.load(target, engine="paddle")
    params = models / "whole/small.pdiparams"
    replace(meta, class_names=["a", "b"]).save(meta_path(target))
    model = Predictor.load(target, params_file=params, engine="paddle")
    with pytest.raises(UserError, match="has 12 classes, its .meta.yaml names 2"):
        model.run(np.ones((1, 3, 16, 25, 2), np.float32))
    replace(meta, batch_size=3).save(meta_path(target))
    with pytest.raises(UserError, match="do not belong together"):
        Predictor.load(target, params_file=params, engine="paddle")
