"""What is added through the project's extension points alone goes all the way to inference.

A network family is one argument dataclass, one network class and one row of `model.build.FAMILIES`
(docs/architecture.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from paddle import Tensor
from paddle.nn import functional as F

import configs
import export as export_cli
import infer as infer_cli
import main as cli
from configs.checks import ConfigError, check
from dataset.protocols import data_spec
from dataset.skeletons import Skeleton
from model import build
from model.layers import conv_norm
from model.network import Classifier, ClipNetwork, Shape, split_persons
from model.tail import Tail
from model.timing import Timing
from tests.networks import measured_geometry
from tests.small_models import eval_clips


@dataclass(frozen=True)
class ToyArgs:
    """`model_args` of a toy: one convolution over time, joints apart."""

    model_types: ClassVar[tuple[str, ...]] = ("Toy",)

    width: int = 8
    drop_prob: float = 0.1

    def __post_init__(self) -> None:
        check(self.width >= 1, "model_args.width", self.width, "1 or more")


class Toy(ClipNetwork):
    def __init__(self, shape: Shape, num_joint: int, args: ToyArgs) -> None:
        super().__init__(shape)
        self.num_joint, self.timing = num_joint, Timing.centred(5, stride=2)
        self.layer = conv_norm(sum(shape.branch_channels), args.width, self.timing)
        self.classifier = Classifier(args.width, shape.num_class, args.drop_prob)

    @property
    def timings(self) -> tuple[Timing, ...]:
        return (self.timing,)

    def trunk(self, clips: Tensor, tail: Tail | None) -> Tensor:
        x = split_persons(clips, self.num_joint)  # (P, C, T, V)
        return F.relu(self.layer(x))  # (P, C', ceil(T / 2), V)

    def head(self, feature: Tensor) -> Tensor:
        return self.classifier(feature)


def build_toy(args: ToyArgs, model_type: str, layout: Skeleton, shape: Shape) -> Toy:
    return Toy(shape, layout.num_joint, args)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tiny_data: Path, tmp_path: Path) -> Path:
    """The family is known; its configuration file, of one epoch on a few short clips."""
    known = configs.model.ModelArgs
    monkeypatch.setattr(configs.model, "ModelArgs", known | ToyArgs)
    monkeypatch.setitem(build.FAMILIES, ToyArgs, build_toy)
    file = tmp_path / "toy.yaml"
    file.write_text(
        "base: 9001\nmodel_type: Toy\nmodel_args: {width: 6}\n"
        f"work_dir: {tmp_path / 'work'}\nno_progress_bar: true\n"
        "scheduler_args: {cosine: {max_epoch: 1, warm_up: 0}}\n"
        f"dataset_args: {{ntu: {{num_frame: 16, root_folder: {tiny_data}}}}}\n"
    )
    return file


def test_configuration_of_a_new_family(toy: Path) -> None:
    config = configs.load(str(toy))
    assert config.model_args == ToyArgs(width=6)
    with pytest.raises(ConfigError, match="widht is unknown; did you mean width"):
        configs.load(str(toy), {"model_args.widht": 6})
    with pytest.raises(ConfigError, match="model_args.width is 0; allowed: 1 or more"):
        configs.load(str(toy), {"model_args.width": 0})


def test_geometry_of_a_new_family(toy: Path) -> None:
    config = configs.load(str(toy))
    spec = data_spec(config.dataset, config.data.own_layout)
    network = build.build_network(config, spec, persons=1)
    assert isinstance(network, Toy)
    geometry = network.geometry
    assert (geometry.receptive_field, geometry.delay, geometry.stride) == (5, 2, 2)
    assert measured_geometry(network, spec.skeleton.num_joint, num_frame=32, reach=8) == (5, 2, 2)


def test_a_new_family_is_trained_exported_and_run(
    toy: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The export itself compares the static model with the network, truncated clips among them."""
    assert cli.main(["-c", str(toy)]) == 0
    assert "Finish training!" in capsys.readouterr().out
    (weights,) = tmp_path.glob("work/toy_Toy_*/*/best.pdparams")
    argv = ["-c", str(toy), "-pp", str(weights), "--save_dir", str(tmp_path)]
    assert export_cli.main(argv) == 0
    argv = ["--model_file", str(tmp_path / "best.pdmodel"), "--data_file"]
    assert infer_cli.main([*argv, str(eval_clips(tiny_data))]) == 0
    assert "Infer Mean Accuracy" in capsys.readouterr().out
