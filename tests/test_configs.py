"""Every configuration loads; wrong ones are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import configs
from configs.checks import ConfigError
from configs.data import MOST_FRAMES, MOST_PERSONS
from configs.schema import Config
from dataset.protocols import DataSpec, data_spec
from errors import UserError
from safe_io import read_text

NAMES = sorted(path.stem for path in configs.FOLDER.glob("*.yaml"))
PROTOCOLS = ["ntu-xsub", "ntu-xview", "ntu-xsub120", "ntu-xset120"]


def test_numbering() -> None:
    streams = [n + tens for tens in (0, 10, 20, 30) for n in range(1001, 1006)]
    own = [1101, 1111, 1121, 1131, 2101, 4101, 4201]
    expected = [str(n) for n in (*streams, *range(2001, 2025), *own, 4211, 9001)]
    assert sorted(expected) == NAMES
    for name in (str(n) for n in (*range(1001, 1005), *range(2001, 2025))):
        config = configs.load(name)
        assert config.dataset == PROTOCOLS[(int(name) - 1) % 4]
        is_xview_gcn = name.startswith("2") and config.dataset == "ntu-xview"
        assert config.dataset_args.ntu.transform == is_xview_gcn
        if name.startswith("2"):
            assert config.model_type[-1] == "024"[(int(name) - 2001) % 12 // 4]
            first_generation = int(name) >= 2013
            args = config.model_args
            wanted = ("Sep", 2, 4) if first_generation else ("SG", 0, 2)
            assert (args.layer_type, args.expand_ratio, args.reduct_ratio) == wanted


def test_published_hyper_parameters() -> None:
    gcn, stgcn = configs.load("2006"), configs.load("1003")
    momentum = gcn.optimizer_args.Momentum
    assert (momentum.learning_rate, momentum.momentum, momentum.weight_decay) == (0.1, 0.9, 1e-4)
    assert momentum.use_nesterov and gcn.lr_scheduler == "cosine"
    assert (gcn.scheduler_args.cosine.max_epoch, gcn.scheduler_args.cosine.warm_up) == (70, 10)
    assert (gcn.dataset_args.ntu.num_frame, gcn.dataset_args.ntu.train_batch_size) == (288, 16)
    assert stgcn.lr_scheduler == "step" and stgcn.scheduler_args.step.step_lr == (10, 50)
    assert (stgcn.max_epoch, stgcn.model_args.drop_prob) == (80, 0.5)
    assert (stgcn.dataset_args.ntu.inputs, stgcn.dataset_args.ntu.num_frame) == ("X", 300)


def test_streams_differ_in_their_input_alone() -> None:
    """The tens digit names the stream: joints, bones, joint motion, bone motion."""
    for base in (1001, 1002, 1003, 1004, 1005, 1101):
        first = configs.load(str(base))
        for tens, letter in ((10, "Y"), (20, "M"), (30, "N")):
            key = f"dataset_args.{first.data.group}.inputs"
            expected = configs.load(str(base), {key: letter, "name": str(base + tens)})
            assert configs.load(str(base + tens)) == expected


def spec_of(config: Config) -> DataSpec:
    return data_spec(config.dataset, config.data.own_layout)


def test_own_data_are_named_in_the_configuration() -> None:
    own = {"dataset": "mine", "dataset_args.keypoint.num_class": 7}
    spec = spec_of(configs.load("1001", own))
    assert (spec.num_class, spec.skeleton.name, spec.num_person) == (7, "coco-17", 1)
    assert spec.class_names[6] == "class 6"
    with pytest.raises(
        UserError, match="'mine', which is not a benchmark .*num_class, skeleton and"
    ):
        spec_of(configs.load("1001", {"dataset": "mine"}))
    with pytest.raises(ConfigError, match="dataset is '../x'; allowed: letters"):
        configs.load("1001", {"dataset": "../x"})


def test_byte_order_marks_are_no_part_of_the_text(tmp_path: Path) -> None:
    """Of a configuration, and of the layout and the class names that it names."""
    files = {
        "names.txt": "挥手\njump\n",
        "two.yaml": "{name: two, joints: [a, b], edges: [[a, b]], centre: a}",
        "own.yaml": "dataset: mine\ndataset_args:\n  keypoint: {num_class: 2, "
        f"class_names: {tmp_path}/names.txt, skeleton: {tmp_path}/two.yaml}}\nbase: 1001",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_text(tmp_path / name) == text
    spec = spec_of(configs.load(str(tmp_path / "own.yaml")))
    assert (spec.class_names, spec.skeleton.name) == (("挥手", "jump"), "two")


@pytest.mark.parametrize(
    ("key", "highest"), [("max_frame", MOST_FRAMES), ("num_person", MOST_PERSONS)]
)
def test_long_and_crowded_clips_of_own_data(key: str, highest: int) -> None:
    key, name = f"dataset_args.keypoint.{key}", key
    own = {"dataset": "mine", "dataset_args.keypoint.num_class": 7, key: highest}
    assert getattr(spec_of(configs.load("1001", own)), name) == highest
    with pytest.raises(ConfigError, match=f"{highest + 1}; allowed: [14] to {highest}"):
        configs.load("1001", {**own, key: highest + 1})


@pytest.mark.parametrize(
    ("name", "key", "highest"),
    [
        *(("2001", "dataset_args.ntu.num_workers", 1024), ("2001", "log_every", 10**9)),
        *(("2001", f"dataset_args.ntu.{phase}_batch_size", 65_536) for phase in ("train", "eval")),
        *(("2001", "accumulate", 65_536), ("2001", "base_batch_size", 10**6)),
        *(("2001", f"scheduler_args.{name}.max_epoch", 100_000) for name in ("cosine", "step")),
        *(("2001", "model_args.stem_channel", 4096), ("2001", "model_args.reduct_ratio", 4096)),
        *(("2001", "model_args.expand_ratio", 100), ("1001", "model_args.max_hop", 100)),
        *(("1001", "model_args.dilation", 100), ("1001", "model_args.kernel_size", 999)),
        *(("4211", "model_args.in_channel", 4096), ("4211", "model_args.kernel_size", 999)),
    ],
)
def test_numbers_have_limits(name: str, key: str, highest: int) -> None:
    configs.load(name, {key: highest})
    with pytest.raises(ConfigError, match=rf"{key} is {highest + 1}; allowed: .*{highest}"):
        configs.load(name, {key: highest + 1})


@pytest.mark.parametrize(
    ("name", "key", "value", "allowed"),
    [
        ("2001", "model_args.block_args", [[4097, 1, 1]] * 2, "channel 1 to 4096"),
        ("2001", "model_args.block_args", [[16, 1, 101]] * 2, "depth 0 to 100"),
        ("2001", "model_args.block_args", [[16, 1, 1]] * 101, "0 to 100"),
        ("1001", "model_args.block_args", [[4097, 1]], "channel 1 to 4096"),
        ("1001", "model_args.block_args", [[16, 1]] * 101, "1 to 100"),
        ("4211", "model_args.block_args", [[16, 1000]], "spacing 1 to 999"),
        ("2001", "model_args.kernel_size", [1001, 2], "up to 999"),
        ("2001", "model_args.scale_args", [1, 4.1], "above 0 to 4"),
        ("1001", "dataset_args.keypoint.image_size", [100_001, 1], "up to 100000"),
        ("2001", "dataset_args.ntu.root_folder", "", "a folder"),
        ("2001", "work_dir", "", "a folder"),
    ],
)
def test_lists_and_folders_have_limits(name: str, key: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.* is .*; allowed: .*{allowed}"):
        configs.load(name, {key: value})


@pytest.mark.parametrize("name", ["1001", "2014", "9001"])
def test_dump_reads_back(name: str, tmp_path: Path) -> None:
    config = configs.load(name, {"seed": 7})
    (tmp_path / "config.yaml").write_text(configs.dump(config))
    assert configs.load(str(tmp_path / "config.yaml")) == config


def test_overrides_reach_any_key() -> None:
    items = [
        "optimizer_args.Adam.learning_rate=1e-3",
        "dataset_args.ntu.num_frame=64",
        "model_args.scale_args=[1, 2.5]",
        "work_dir=./x",
    ]
    config = configs.load("2001", configs.parse_set(items))
    assert config.dataset_args.ntu.num_frame == 64
    assert config.optimizer_args.Adam.learning_rate == 0.001
    assert config.model_args.scale_args == (1.0, 2.5) and config.work_dir == "./x"


def test_another_family_starts_its_model_args_afresh() -> None:
    config = configs.load("2001", {"model_type": "ST-GCN", "dataset_args.ntu.inputs": "JB"})
    assert config.model_args.strategy == "spatial" and config.dataset_args.ntu.inputs == "JB"
    late = {
        "model_args.strategy": "uniform",
        "dataset_args.ntu.inputs": "X",
        "model_type": "ST-GCN",
    }
    assert configs.load("2001", late).model_args.strategy == "uniform"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"model_args.block_args": []}, "number of rows is 0; allowed: 1 to 100"),
        (
            {"model_args.block_args": [[64, 0]]},
            r"block_args\[0\] is \[64, 0\].*tap spacing 1 to 999",
        ),
        ({"model_args.kernel_size": 0}, "model_args.kernel_size is 0; allowed: 1 to 999"),
        ({"model_args.in_channel": 0}, "model_args.in_channel is 0; allowed: 1 to 4096"),
        ({"model_args.drop_prob": 1}, "0 to below 1"),
        ({"model_args.strategy": "far"}, "allowed: uniform, distance, spatial"),
        ({"model_args.max_hop": 2}, "max_hop is unknown"),
    ],
)
def test_wrong_values_of_rt_stgcn_are_refused(override: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load("4211", override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"dataset_args.ntu.numframe": 64}, "numframe is unknown; did you mean num_frame"),
        ({"model_args.drop_probb": 0}, "did you mean drop_prob"),
        ({"dataset_args.ntu.num_frame": "64"}, "'64'; allowed: int"),
        ({"dataset_args.ntu.num_frame": 301}, "allowed: 4 to 300"),
        ({"dataset_args.ntu.inputs": "JJ"}, "any subset of J, V, B"),
        ({"dataset_args.ntu.inputs": "X"}, "EfficientGCN does not support"),
        ({"dataset_args.ntu": 3}, "allowed: a group of keys"),
        ({"model_args.att_type": "se"}, "allowed: stja, pa"),
        ({"model_args.block_args": [[48, 3, 1]]}, r"block_args\[0\]"),
        ({"model_args.fusion_stage": 5}, "allowed: 0 to 4"),
        ({"model_args.kernel_size": [4, 2]}, "odd number of frames"),
        ({"model_args.kernel_size": [5]}, "has 1 entries; allowed: 2"),
        ({"model_type": "EfficientGCN-B9"}, "EfficientGCN-B4"),
        ({"optimizer": "SGD"}, "allowed: Momentum, Adam"),
        ({"optimizer_args.Momentum.learning_rate": float("nan")}, "finite"),
        ({"scheduler_args.cosine.warm_up": 70}, "0 to below max_epoch"),
        ({"scheduler_args.step.step_lr": [50, 20]}, "increasing"),
        ({"debug": 1}, "allowed: bool"),
        ({"seed": True}, "allowed: int"),
        ({"seed.x": 1}, "not a group"),
        ({"gpus": [0, 1]}, "one GPU number"),
        ({"gpus": [-1]}, "one GPU number from 0"),
        ({"model_args.kernel_size": [5, 11]}, "largest hop 0 to 10"),
        ({"optimizer_args.Momentum.learning_rate": "1e999"}, "finite"),
        ({"optimizer_args.Momentum.learning_rate": 10**400}, "allowed: float"),
    ],
)
def test_wrong_values_are_refused(override: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load("2001", override)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    for text, message in (
        ("- a list", "must contain keys"),
        ("a: [", "f.yaml: not readable as YAML"),
        ("seed: 2024-13-45", "not readable as YAML"),
        ("base: 31337", "does not exist"),
        (f"base: {tmp_path / 'f.yaml'}", "is circular"),
        ("modle_type: ST-GCN", "f.yaml: modle_type is unknown; did you mean model_type"),
    ):
        (tmp_path / "f.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            configs.load(str(tmp_path / "f.yaml"))
    with pytest.raises(ConfigError, match="did you mean 2011"):
        configs.load("20011")
    with pytest.raises(ConfigError, match="does not exist"):
        configs.load("9" * 300)
    with pytest.raises(ConfigError, match="key=value"):
        configs.parse_set(["seed"])
    for value in ("2024-13-45", "[" * 3000, "{"):
        with pytest.raises(UserError, match="not readable as YAML"):
            configs.parse_set([f"work_dir={value}"])


def test_base_is_seen_from_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("base: 2001\nseed: 5")
    (tmp_path / "child.yaml").write_text("base: parent.yaml\ndebug: true")
    config = configs.load(str(tmp_path / "child.yaml"))
    assert (config.seed, config.debug) == (5, True)
    assert config.run_name == "child_EfficientGCN-B0_ntu-xsub"


def test_files_are_seen_from_the_configuration_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it first, then in the current folder; the stored configuration names the same ones."""
    layout = "{{name: {}, joints: [a, b], edges: [[a, b]], centre: a}}"
    for folder in ("lab", "lab/sub", "run"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lab/layout.yaml").write_text(layout.format("beside"))
    (tmp_path / "layout.yaml").write_text(layout.format("current"))
    (tmp_path / "lab/names.txt").write_text("a\nb\n")
    (tmp_path / "other.pkl").write_text("")
    (tmp_path / "lab/w.pdparams").write_text("")
    (tmp_path / "run/w.pdparams").write_text("")
    (tmp_path / "lab/own.yaml").write_text(
        "base: 1001\ndataset: mine\npretrained_path: w.pdparams\ndataset_args:\n  keypoint: "
        "{num_class: 2, class_names: ../lab/names.txt, skeleton: layout.yaml, "
        "source_path: ./other.pkl}"
    )
    (tmp_path / "lab/sub/child.yaml").write_text("base: ../own.yaml\nseed: 5")
    monkeypatch.chdir(tmp_path)
    loaded = [configs.load(file) for file in ("lab/own.yaml", str(tmp_path / "lab/own.yaml"))]
    loaded.append(configs.load("lab/sub/child.yaml"))
    for config in loaded:
        keypoint = config.dataset_args.keypoint
        assert (keypoint.skeleton, keypoint.class_names, keypoint.source_path) == (
            *("lab/layout.yaml", "lab/names.txt", "./other.pkl"),
        )
        assert config.pretrained_path == "lab/w.pdparams"
        spec = spec_of(config)
        assert (spec.skeleton.name, spec.class_names) == ("beside", ("a", "b"))
    overridden = configs.load("lab/own.yaml", {"dataset_args.keypoint.skeleton": "layout.yaml"})
    assert spec_of(overridden).skeleton.name == "current", "--set: seen from the current folder"
    stored = configs.load("lab/own.yaml", {"pretrained_path": "w.pdparams"})
    (tmp_path / "run/config.yaml").write_text(configs.dump(stored))
    assert configs.load("run/config.yaml") == stored
    monkeypatch.chdir(tmp_path / "run")
    config = configs.load("../lab/own.yaml")
    assert config.dataset_args.keypoint.skeleton == str(tmp_path / "lab/layout.yaml")


def test_names_of_built_in_lists_are_no_files(tmp_path: Path) -> None:
    for name in ("utd-mhad", "coco-17"):
        (tmp_path / name).mkdir()
    keys = "{num_class: 27, class_names: utd-mhad, skeleton: coco-17}"
    text = f"base: 1001\ndataset: mine\ndataset_args: {{keypoint: {keys}}}"
    (tmp_path / "own.yaml").write_text(text)
    spec = spec_of(configs.load(str(tmp_path / "own.yaml")))
    assert (spec.skeleton.name, spec.num_class) == ("coco-17", 27)


def test_every_key_is_explained() -> None:
    """docs/configs.md has a row for every key of the resolved configurations."""
    page = (configs.FOLDER.parent / "docs/configs.md").read_text()

    def leaves(tree: dict) -> set[str]:
        nested = [leaves(v) if isinstance(v, dict) else {k} for k, v in tree.items()]
        return set().union(*nested)

    for name in ("1001", "2001", "4201"):
        for key in leaves(yaml.safe_load(configs.dump(configs.load(name)))):
            assert f"`{key}`" in page, key
