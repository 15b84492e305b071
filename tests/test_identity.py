"""Data, weights, models and the configuration are compared wherever two of them meet: both values
in one line and exit code 2, and --accept for a deliberate difference."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import configs
import export as export_cli
import infer as infer_cli
import main as cli
from configs.schema import DIFFERENCES
from dataset import identity
from errors import UserError, run_command
from tests.keypoint_data import body, keypoint_config, made, manifest_of, write_folder
from tests.networks import network_of
from training import run_state
from training.checkpoint import load_checkpoint, save_checkpoint, weights_of

NETWORK = ["model_args.block_args=[[8, 1], [16, 2]]", "model_args.kernel_size=3"]
SHORT = ["lr_scheduler=cosine", "scheduler_args.cosine.max_epoch=2"]
SHORT += ["scheduler_args.cosine.warm_up=0", "optimizer_args.Momentum.learning_rate=0.01"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `source/` (8 clips of two classes and three splits, coco-17), generated in `npy/`
    with the splits one and two, and trained in `run/`."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "source").mkdir()
    rows = [(f"{s}{n}.npy", n % 2, s) for s in ("one", "two", "three") for n in range(4)]
    arrays = {row[0]: body(seed) for seed, row in enumerate(rows)}
    write_folder(folder / "source", arrays, rows)
    made(folder / "source", folder / "npy", train_split="one", eval_split="two")
    assert cli.main(["-c", "1001", "-np", "--set", *keys(folder), *SHORT]) == 0
    (run,) = folder.glob("work/*/*")
    shutil.copytree(run, folder / "run")
    return folder


def keys(folder: Path, **changes: object) -> list[str]:
    """--set arguments of the set `own`, changed."""
    group = {"source_path": folder / "source", "root_folder": folder / "npy", "num_class": 2}
    group.update(max_frame=16, num_frame=16, train_split="one", eval_split="two")
    group.update(num_workers=0, train_batch_size=4)
    pairs = [f"dataset_args.keypoint.{k}={v}" for k, v in {**group, **changes}.items()]
    return [*pairs, *NETWORK, "dataset=mine", f"work_dir={folder / 'work'}"]


def error_of(argv: list[str], capsys: pytest.CaptureFixture[str], program=cli) -> str:
    """The error line of a command that exits with 2."""
    capsys.readouterr()
    assert run_command(lambda: program.main(argv)) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("change", "found", "accepted"),
    [
        ({"eval_split": "three"}, "splits.eval is 'two', the configuration says 'three'", "splits"),
        ({"train_split": "three"}, "splits.train is 'one', the config", "splits"),
        ({"skeleton": "halpe"}, "skeleton is 'coco-17', the configuration says", "skeleton"),
        ({"unit": "millimetre"}, "unit is 'metre', the configuration says 'millimetre'", "unit"),
        ({"max_frame": 20}, "max_frame is 16, the configuration says 20", "max_frame"),
        ({"first_label": 1}, "first_label is 0, the configuration says 1", "first_label"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_data_generated_with_other_settings_are_refused(
    own: Path, tmp_path: Path, capsys, change: dict[str, object], found: str, accepted: str
) -> None:
    """After -gd with one split, other splits would be evaluated on the old one without a word."""
    if "skeleton" in change:  # as many joints, other edges
        layout = {"name": "chain", "joints": [f"j{n}" for n in range(17)], "centre": "j0"}
        layout["edges"] = [[f"j{n}", f"j{n + 1}"] for n in range(16)]
        (tmp_path / "chain.yaml").write_text(yaml.safe_dump(layout))
        change = {"skeleton": tmp_path / "chain.yaml"}
        found += " 'chain'"
    weights = tmp_path / "bare.pdparams"  # says nothing of itself
    config = configs.load("1001", configs.parse_set(keys(own, **change)))
    save_checkpoint(weights, {"model": weights_of(network_of(config))})
    for mode in ([], ["-e", "-pp", str(weights)]):
        argv = ["-c", "1001", "-np", *mode, "--set", *keys(own, **change), *SHORT]
        line = error_of(argv, capsys)
        assert found in line and f"--accept {accepted}" in line
        assert "python main.py -c 1001 -gd -d mine" in line
        assert cli.main([*argv[:3], "--accept", accepted, *argv[3:]]) == 0


def test_the_command_in_the_error_makes_the_right_data(own: Path, tmp_path: Path, capsys) -> None:
    changed = {"eval_split": "three", "root_folder": tmp_path / "npy", "image_size": "[9,8]"}
    argv = ["-c", "1001", "-np", "--set", *keys(own, **changed), *SHORT]
    shutil.copytree(own / "npy", tmp_path / "npy")
    for _ in range(2):  # other data, then none
        line = error_of(argv, capsys)
        command = line[line.index("python main.py") :].partition(";")[0]
        assert cli.main(shlex.split(command)[2:]) == 0
        assert manifest_of(tmp_path / "npy/original/mine")["splits"]["eval"] == "three"
        assert cli.main(argv) == 0
        shutil.rmtree(tmp_path / "npy")


def test_another_source_is_a_warning(own: Path, capsys) -> None:
    """-gd may name it alone, and a run may move; a source that is not stated is not compared."""
    for source, found in (("x.pkl", True), ("", False), (own / "source/../source", False)):
        capsys.readouterr()
        argv = ["-c", "1001", "-np", "--set", *keys(own, source_path=source), *SHORT]
        assert cli.main(argv) == 0
        warned = f"was made from {own / 'source'}; the configuration says x.pkl"
        assert (warned in capsys.readouterr().out) == found


def test_the_source_of_a_benchmark_may_move(tiny_keys: list[str]) -> None:
    """Where NTU-style recordings lie says nothing of them; the fixture's set has another path."""
    assert cli.main(["-c", "9001", "-np", *tiny_keys, "scheduler_args.cosine.max_epoch=2"]) == 0


@pytest.mark.parametrize(
    ("change", "found", "accepted"),
    [
        ({"num_frame": 8}, "num_frame is 16, the configuration says 8", "num_frame"),
        ({"inputs": "Y"}, "inputs is 'JVB', the configuration says 'Y'", "inputs"),
        ({"centre": "true"}, "centre is False, the configuration says True", "centre"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_weights_of_other_settings_are_refused(
    own: Path, tmp_path: Path, capsys, change: dict[str, object], found: str, accepted: str
) -> None:
    """Evaluation, export and a training that starts from them."""
    pretrained = ["-pp", str(own / "run/last.pdparams"), "--set", *keys(own, **change)]
    line = error_of(["-c", "1001", "-np", "-e", *pretrained], capsys)
    assert found in line and f"--accept {accepted}" in line and "last.pdparams" in line
    assert found in error_of(["-c", "1001", "-np", *pretrained], capsys)
    to = ["--save_dir", str(tmp_path)]
    assert found in error_of(["-c", "1001", *to, *pretrained], capsys, export_cli)
    if accepted == "num_frame":
        assert cli.main(["-c", "1001", "-np", "-e", "--accept", accepted, *pretrained]) == 0
        assert export_cli.main(["-c", "1001", "--accept", accepted, *to, *pretrained]) == 0


def test_the_stream_of_the_weights_is_that_of_the_configuration(own: Path, capsys) -> None:
    """Joint and bone have as many channels: nothing but the identity tells them apart."""
    joint = [*keys(own, inputs="X"), *SHORT]
    assert cli.main(["-c", "1001", "-np", "--set", *joint]) == 0
    weights = max(own.glob("work/*/*/last.pdparams"), key=lambda path: path.stat().st_mtime)
    argv = ["-c", "1001", "-np", "-e", "-pp", str(weights), "--set", *keys(own, inputs="Y")]
    assert "inputs is 'X', the configuration says 'Y'" in error_of(argv, capsys)


def test_weights_on_another_joint_graph_are_refused(tmp_path: Path, capsys) -> None:
    """25 joints of the Kinect and of OpenPose: shapes are equal, adjacencies are not. Accepted, the
    weights keep the graph that they were trained with."""
    small = ["--set", *NETWORK, f"work_dir={tmp_path}"]
    ntu = configs.load("1001", {**configs.parse_set(small[1:]), "dataset_args.ntu.inputs": "X"})
    weights = tmp_path / "ntu.pdparams"
    save_checkpoint(weights, {"model": weights_of(network_of(ntu))})
    openpose = ["dataset=mine", "dataset_args.keypoint.skeleton=openpose-25"]
    openpose += ["dataset_args.keypoint.num_class=60", "dataset_args.keypoint.num_person=2"]
    openpose += ["dataset_args.keypoint.inputs=X", "dataset_args.ntu.inputs=X"]
    argv = ["-c", "1001", "-pp", str(weights), *small, *openpose]
    line = error_of(argv, capsys, export_cli)
    assert "A is the adjacency of another joint layout" in line and "--accept graph" in line
    from dataset.protocols import data_spec
    from training.checkpoint import load_network

    config = configs.load(
        "1001",
        configs.parse_set([*small[1:], *openpose, f"pretrained_path={weights}", "accept=[graph]"]),
    )
    network = load_network(config, data_spec("mine", config.data.own_layout))
    np.testing.assert_array_equal(network.A.numpy(), network_of(ntu).A.numpy())


def test_a_model_refuses_data_of_another_kind(own: Path, tmp_path: Path, capsys) -> None:
    """The manifest says another layout, image coordinates, or other classes."""
    pretrained = ["-pp", str(own / "run/last.pdparams"), "--set", *keys(own)]
    assert export_cli.main(["-c", "1001", "--save_dir", str(tmp_path), *pretrained]) == 0
    folder = tmp_path / "data"
    shutil.copytree(own / "npy/original/mine", folder)
    about = manifest_of(folder)
    argv = ["--model_file", str(tmp_path / "last.pdmodel"), "--data_file"]
    argv += [str(folder / "eval_data.npy"), "-np"]
    for change, found, accepted in (
        ({"skeleton": "halpe-17"}, "skeleton is 'halpe-17', the model says 'coco-17'", "skeleton"),
        ({"unit": "pixel"}, "coordinates is 'image', the model says 'space'", "coordinates"),
        (
            {"class_names": ["walk", "class 1"]},
            "class 0 is 'walk', the model says 'class 0'",
            "class_names",
        ),
        ({"class_names": ["a"]}, "class_names has 1 classes, the model has 2", "class_names"),
    ):
        (folder / "manifest.json").write_text(json.dumps({**about, **change}))
        line = error_of(argv, capsys, infer_cli)
        assert found in line and f"--accept {accepted}" in line
        assert infer_cli.main([*argv, "--accept", accepted]) == 0
    (folder / "manifest.json").write_text(json.dumps(about))
    assert infer_cli.main(argv) == 0
    assert "did you mean skeleton?" in error_of([*argv, "--accept", "skeletn"], capsys, infer_cli)


def test_fine_tuning_keeps_a_classifier_of_the_same_classes_only(
    own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As many classes with other names: their weights start at random, unless accepted."""
    from dataset.protocols import data_spec
    from training.checkpoint import load_network

    caplog.set_level(logging.INFO)
    old = load_checkpoint(own / "run/last.pdparams")["model"]["fcn.weight"]
    (tmp_path / "names.txt").write_text("class 1\nclass 0\n")

    def classifier(*more: str, **changes: object) -> np.ndarray:
        start = [f"pretrained_path={own / 'run/last.pdparams'}", "finetune=true", *more]
        config = configs.load("1001", configs.parse_set([*keys(own, **changes), *start]))
        network = load_network(config, data_spec("mine", config.data.own_layout))
        return network.fcn.weight.numpy()

    np.testing.assert_array_equal(classifier(), old)
    other = {"class_names": tmp_path / "names.txt"}
    assert not np.isclose(classifier(**other), old).any()
    assert "its classes are other ones" in caplog.text
    np.testing.assert_array_equal(classifier("accept=[class_names]", **other), old)


def test_another_number_of_classes_asks_for_fine_tuning(own: Path, capsys) -> None:
    bare = own / "bare.pdparams"
    save_checkpoint(bare, {"model": load_checkpoint(own / "run/last.pdparams")["model"]})
    argv = ["-c", "1001", "-pp", str(bare), "--set", *keys(own, num_class=3)]
    line = error_of(argv, capsys, export_cli)
    assert "Only the classifier differs: to train one for these classes, fine-tune: -ft" in line
    argv = ["-c", "1001", "-pp", str(bare), "--set", *keys(own), "model_args.kernel_size=5"]
    line = error_of(argv, capsys, export_cli)
    assert "Choose the configuration (-c)" in line and "-ft" not in line


def test_a_run_moves_to_another_machine(
    own: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other paths, workers and evaluation batches resume bit for bit; other clips do not."""
    for name in ("npy", "source"):
        shutil.copytree(own / name, tmp_path / name)
    (tmp_path / "run").mkdir()
    first, save = tmp_path / "run/last.pdparams", run_state.save

    def save_first(path: Path, *state: object) -> None:
        save(path, *state)
        if not first.exists():
            shutil.copy(path, first)

    monkeypatch.setattr(run_state, "save", save_first)
    assert cli.main(["-c", "1001", "-np", "--set", *keys(own), *SHORT]) == 0
    whole = max(own.glob("work/*/*/last.pdparams"), key=lambda path: path.stat().st_mtime)

    (tmp_path / "9.yaml").write_text("base: 1001\n")
    moved = keys(tmp_path, eval_batch_size=3, num_workers=1, on_bad_file="skip")
    resume = ["-np", "-r", "-pp", str(first), "--set", *moved, *SHORT]
    capsys.readouterr()
    assert cli.main(["-c", str(tmp_path / "9.yaml"), *resume]) == 0
    assert "after epoch 1" in capsys.readouterr().out
    expected, resumed = load_checkpoint(whole)["model"], load_checkpoint(first)["model"]
    for name, array in expected.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    assert "kernel_size" in error_of(["-c", "1001", *resume, "model_args.kernel_size=5"], capsys)

    rows = [(f"{s}{n}.npy", 1 - n % 2, s) for s in ("one", "two") for n in range(4)]
    write_folder(tmp_path / "source", {}, rows)
    made(tmp_path / "source", tmp_path / "npy", train_split="one", eval_split="two")
    line = error_of(["-c", "1001", *resume], capsys)
    assert "train_clips is" in line and "--accept train_clips" in line


def test_a_manifest_states_the_identity_of_its_data(own: Path) -> None:
    """What -gd writes is what a training compares, for every setting."""
    config = keypoint_config(own / "source", own / "npy", train_split="one", eval_split="two")
    from dataset.protocols import data_spec

    spec = data_spec("mine", config.data.own_layout)
    about = identity.of_data(config.data, spec)
    names = {*about, *identity.of_weights(config, spec)} - {"source"}
    assert names <= set(DIFFERENCES), "what is compared can be accepted"
    manifest = manifest_of(own / "npy/original/mine")
    assert {key: manifest[key] for key in about} == about


def test_first_differences_are_shown() -> None:
    """Of long values only what differs, and at most four settings."""
    layout = {"name": "a", "joints": ["x", "y"], "edges": []}
    for stored, wanted, message in (
        (
            {"skeleton": layout},
            {"skeleton": {**layout, "edges": [["x", "y"]]}},
            "skeleton is 'a', the configuration says 'a' with other edges",
        ),
        (
            {"model_args": {"k": 1, "w": 2}},
            {"model_args": {"k": 1, "w": 3}},
            "model_args.w is 2, the configuration says 3",
        ),
        ({"unit": "x" * 200}, {"unit": "m"}, "unit is '" + "x" * 56 + "..., the"),
        ({f"k{n}": 0 for n in range(9)}, {f"k{n}": 1 for n in range(9)}, "and 5 more"),
    ):
        with pytest.raises(UserError) as error:
            identity.compare(
                stored, wanted, source="f", other="the configuration", fix="Fix it", accept=()
            )
        assert message in str(error.value)
