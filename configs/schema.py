"""The configuration as frozen dataclasses; configs/data.py has those of the data, configs/model.py
those of the networks. docs/configs.md explains each key. A field is checked beside its definition;
the error for a wrong value names the full key, e.g. `model_args.reduct_ratio`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath

from configs.checks import ConfigError, check, check_range, one_of
from configs.data import MOST_BATCH, DataArgs, DatasetArgs, select_group
from configs.model import EfficientGCNArgs, ModelArgs

# Settings in which data, weights, models and the configuration may differ where `accept` names them
# (dataset/identity.py).
DIFFERENCES = (
    *("dataset", "unit", "axes", "up", "image_size", "first_label", "splits"),
    *(
        "openpose_match",
        "transform",
        "repair_order",
        "skeleton",
        "num_person",
        "max_frame",
        "class_names",
    ),
    *("model_type", "model_args", "inputs", "num_frame", "resample", "centre", "coordinates"),
    *("train_split", "graph", "train_clips"),
)


def _check_rates(key: str, learning_rate: float, weight_decay: float) -> None:
    check(learning_rate > 0, key + "learning_rate", learning_rate, "above 0")
    check(weight_decay >= 0, key + "weight_decay", weight_decay, "0 or more")


@dataclass(frozen=True)
class MomentumArgs:
    """`optimizer_args.Momentum`: SGD with (Nesterov) momentum."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    use_nesterov: bool = True
    weight_decay: float = 0.0001

    def __post_init__(self) -> None:
        key = "optimizer_args.Momentum."
        _check_rates(key, self.learning_rate, self.weight_decay)
        check(0 <= self.momentum < 1, key + "momentum", self.momentum, "0 to below 1")


@dataclass(frozen=True)
class AdamArgs:
    """`optimizer_args.Adam`."""

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0001

    def __post_init__(self) -> None:
        key = "optimizer_args.Adam."
        _check_rates(key, self.learning_rate, self.weight_decay)
        for name in ("beta1", "beta2"):
            check(0 <= getattr(self, name) < 1, key + name, getattr(self, name), "0 to below 1")


@dataclass(frozen=True)
class OptimizerArgs:
    """`optimizer_args`: settings of each optimizer; `optimizer` selects one."""

    Momentum: MomentumArgs = field(default_factory=MomentumArgs)
    Adam: AdamArgs = field(default_factory=AdamArgs)


@dataclass(frozen=True)
class StepArgs:
    """`scheduler_args.step`: the learning rate is divided by 10 at each epoch in step_lr."""

    max_epoch: int = 70
    warm_up: int = 10
    step_lr: tuple[int, ...] = (20, 50)

    def __post_init__(self) -> None:
        _check_epochs("scheduler_args.step.", self.max_epoch, self.warm_up)
        steps = self.step_lr
        increasing = list(steps) == sorted(set(steps)) and min(steps, default=1) > 0
        check(increasing, "scheduler_args.step.step_lr", steps, "increasing epochs above 0")


@dataclass(frozen=True)
class CosineArgs:
    """`scheduler_args.cosine`: the learning rate decays along half a cosine."""

    max_epoch: int = 70
    warm_up: int = 10

    def __post_init__(self) -> None:
        _check_epochs("scheduler_args.cosine.", self.max_epoch, self.warm_up)


def _check_epochs(key: str, max_epoch: int, warm_up: int) -> None:
    check_range(key + "max_epoch", max_epoch, 1, 100_000)
    check(0 <= warm_up < max_epoch, key + "warm_up", warm_up, f"0 to below max_epoch ({max_epoch})")


@dataclass(frozen=True)
class SchedulerArgs:
    """`scheduler_args`: settings of each schedule; `lr_scheduler` selects one."""

    step: StepArgs = field(default_factory=StepArgs)
    cosine: CosineArgs = field(default_factory=CosineArgs)


@dataclass(frozen=True)
class Config:
    """One resolved experiment. `name` is the number or the path it was loaded by."""

    name: str
    model_args: ModelArgs
    dataset: str = "ntu-xsub"
    dataset_args: DatasetArgs = field(default_factory=DatasetArgs)
    model_type: str = "EfficientGCN-B0"
    optimizer: str = "Momentum"
    optimizer_args: OptimizerArgs = field(default_factory=OptimizerArgs)
    lr_scheduler: str = "cosine"
    scheduler_args: SchedulerArgs = field(default_factory=SchedulerArgs)
    base_batch_size: int = 0
    accumulate: int = 1
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    amp: str = ""
    sync_bn: bool = False
    gpus: tuple[int, ...] = ()
    seed: int = 1
    debug: bool = False
    pretrained_path: str = ""
    finetune: bool = False
    accept: tuple[str, ...] = ()
    work_dir: str = "./workdir"
    no_progress_bar: bool = False
    log_every: int = 0
    cpu_setup: bool = True

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, "Momentum", "Adam")
        one_of("lr_scheduler", self.lr_scheduler, "step", "cosine")
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_range("base_batch_size", self.base_batch_size, 0, 10**6)
        check_range("accumulate", self.accumulate, 1, MOST_BATCH)
        check_range("log_every", self.log_every, 0, 10**9)
        check(bool(self.work_dir), "work_dir", "", "a folder; '.' for this one")
        for name in self.accept:
            one_of("accept", name, *DIFFERENCES)
        check(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 (off) or more")
        smoothing = self.label_smoothing
        check(0 <= smoothing < 1, "label_smoothing", smoothing, "0 (off) to below 1")
        check(self.amp in ("", "bf16", "fp16"), "amp", self.amp, "bf16, fp16, or '' for float32")
        single = len(self.gpus) <= 1 and min(self.gpus, default=0) >= 0
        check(single, "gpus", list(self.gpus), "one GPU number from 0, or none for the CPU")
        name_ok = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.dataset)
        check(bool(name_ok), "dataset", self.dataset, "letters, digits, '.', '-' and '_'")
        if self.data.inputs in list("XYMN") and isinstance(self.model_args, EfficientGCNArgs):
            key = f"dataset_args.{self.data.group}.inputs"
            raise ConfigError(
                f"{key} is {self.data.inputs!r}, which EfficientGCN does not support; allowed with "
                "EfficientGCN: any subset of J, V, B"
            )

    @property
    def data(self) -> DataArgs:
        """The group of `dataset_args` that `dataset` selects."""
        return select_group(self.dataset, self.dataset_args)

    @property
    def max_epoch(self) -> int:
        """Number of epochs of the selected schedule."""
        return getattr(self.scheduler_args, self.lr_scheduler).max_epoch

    @property
    def run_name(self) -> str:
        """Folder of this experiment's runs in work_dir, e.g. '2001_EfficientGCN-B0_ntu-xsub'."""
        return f"{PurePath(self.name).stem}_{self.model_type}_{self.dataset}"
