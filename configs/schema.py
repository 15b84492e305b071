"""The configuration as frozen dataclasses; those of the data are in configs/data.py. Each key is
explained in docs/configs.md; a field's check stands beside it, and a wrong value is refused with
its full key, e.g. `model_args.reduct_ratio`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Union

from configs.checks import ConfigError, check, one_of
from configs.data import ClipArgs, DatasetArgs, data_group


@dataclass(frozen=True)
class EfficientGCNArgs:
    """`model_args` of EfficientGCN; the scaling B0 to B4 is the last character of model_type."""

    stem_channel: int = 64
    block_args: tuple[tuple[int, int, float], ...] = (
        (48, 1, 0.5),
        (24, 1, 0.5),
        (64, 2, 1),
        (128, 2, 1),
    )
    fusion_stage: int = 2
    act_type: str = "swish"
    att_type: str = "stja"
    layer_type: str = "SG"
    drop_prob: float = 0.25
    kernel_size: tuple[int, int] = (5, 2)
    scale_args: tuple[float, float] = (1.2, 1.35)
    expand_ratio: int = 0
    reduct_ratio: int = 2
    bias: bool = True
    edge: bool = True

    def __post_init__(self) -> None:
        key = "model_args."
        for n, row in enumerate(self.block_args):
            ok = len(row) == 3 and row[0] >= 1 and row[1] in (1, 2) and row[2] >= 0
            check(ok, f"{key}block_args[{n}]", row, "[channel >= 1, stride 1 or 2, depth >= 0]")
        check(
            0 <= self.fusion_stage <= len(self.block_args),
            key + "fusion_stage",
            self.fusion_stage,
            f"0 to {len(self.block_args)} (the number of block_args)",
        )
        one_of(key + "act_type", self.act_type, "relu", "relu6", "hswish", "swish")
        one_of(key + "att_type", self.att_type, "stja", "pa", "ca", "fa", "ja", "none")
        one_of(key + "layer_type", self.layer_type, "Basic", "Bottleneck", "Sep", "SG")
        check(0 <= self.drop_prob < 1, key + "drop_prob", self.drop_prob, "0 to below 1")
        kernel, hops = self.kernel_size
        check(
            kernel >= 1 and kernel % 2 == 1 and 0 <= hops <= 10,
            key + "kernel_size",
            self.kernel_size,
            "[odd number of frames, largest hop 0 to 10]",
        )
        check(self.reduct_ratio >= 1, key + "reduct_ratio", self.reduct_ratio, "1 or more")
        check(self.expand_ratio >= 0, key + "expand_ratio", self.expand_ratio, "0 or more")
        check(min(self.scale_args) > 0, key + "scale_args", self.scale_args, "two numbers above 0")
        check(self.stem_channel >= 1, key + "stem_channel", self.stem_channel, "1 or more")


@dataclass(frozen=True)
class STGCNArgs:
    """`model_args` of the 4-D ST-GCN."""

    strategy: str = "spatial"
    max_hop: int = 1
    dilation: int = 1
    true_hops: bool = False
    edge_importance: bool = True
    drop_prob: float = 0.5
    kernel_size: int = 9
    block_args: tuple[tuple[int, int], ...] = (
        *((64, 1),) * 4,
        *((128, 2), (128, 1), (128, 1)),
        *((256, 2), (256, 1), (256, 1)),
    )

    def __post_init__(self) -> None:
        key = "model_args."
        check(bool(self.block_args), key + "block_args", [], "one block or more")
        for n, (channel, stride) in enumerate(self.block_args):
            ok = channel >= 1 and stride in (1, 2)
            check(ok, f"{key}block_args[{n}]", [channel, stride], "[channel >= 1, stride 1 or 2]")
        one_of(key + "strategy", self.strategy, "uniform", "distance", "spatial")
        check(self.max_hop >= 1, key + "max_hop", self.max_hop, "1 or more")
        check(self.dilation >= 1, key + "dilation", self.dilation, "1 or more")
        check(0 <= self.drop_prob < 1, key + "drop_prob", self.drop_prob, "0 to below 1")
        odd = self.kernel_size >= 1 and self.kernel_size % 2 == 1
        check(odd, key + "kernel_size", self.kernel_size, "an odd number of frames")


@dataclass(frozen=True)
class MomentumArgs:
    """`optimizer_args.Momentum`: SGD with (Nesterov) momentum."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    use_nesterov: bool = True
    weight_decay: float = 0.0001

    def __post_init__(self) -> None:
        key = "optimizer_args.Momentum."
        check(self.learning_rate > 0, key + "learning_rate", self.learning_rate, "above 0")
        check(0 <= self.momentum < 1, key + "momentum", self.momentum, "0 to below 1")
        check(self.weight_decay >= 0, key + "weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True)
class AdamArgs:
    """`optimizer_args.Adam`."""

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0001

    def __post_init__(self) -> None:
        key = "optimizer_args.Adam."
        check(self.learning_rate > 0, key + "learning_rate", self.learning_rate, "above 0")
        for name in ("beta1", "beta2"):
            check(0 <= getattr(self, name) < 1, key + name, getattr(self, name), "0 to below 1")
        check(self.weight_decay >= 0, key + "weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True)
class OptimizerArgs:
    """`optimizer_args`: settings of each optimizer; `optimizer` chooses."""

    Momentum: MomentumArgs = field(default_factory=MomentumArgs)
    Adam: AdamArgs = field(default_factory=AdamArgs)


@dataclass(frozen=True)
class StepArgs:
    """`scheduler_args.step`: the rate falls to a tenth at each epoch of step_lr."""

    max_epoch: int = 70
    warm_up: int = 10
    step_lr: tuple[int, ...] = (20, 50)

    def __post_init__(self) -> None:
        _check_epochs("scheduler_args.step.", self.max_epoch, self.warm_up)
        rising = (
            list(self.step_lr) == sorted(set(self.step_lr)) and min(self.step_lr, default=1) > 0
        )
        check(rising, "scheduler_args.step.step_lr", self.step_lr, "epochs above 0, rising")


@dataclass(frozen=True)
class CosineArgs:
    """`scheduler_args.cosine`: the rate falls along half a cosine."""

    max_epoch: int = 70
    warm_up: int = 10

    def __post_init__(self) -> None:
        _check_epochs("scheduler_args.cosine.", self.max_epoch, self.warm_up)


def _check_epochs(key: str, max_epoch: int, warm_up: int) -> None:
    check(max_epoch >= 1, key + "max_epoch", max_epoch, "1 or more")
    check(0 <= warm_up < max_epoch, key + "warm_up", warm_up, f"0 to below max_epoch ({max_epoch})")


@dataclass(frozen=True)
class SchedulerArgs:
    """`scheduler_args`: settings of each schedule; `lr_scheduler` chooses."""

    step: StepArgs = field(default_factory=StepArgs)
    cosine: CosineArgs = field(default_factory=CosineArgs)


MODEL_ARGS = {"ST-GCN": STGCNArgs, "EfficientGCN": EfficientGCNArgs}


def model_family(model_type: str) -> str:
    """'EfficientGCN-B0' -> 'EfficientGCN'. Raises ConfigError for an unknown model_type."""
    names = ["ST-GCN"] + [f"EfficientGCN-B{phi}" for phi in range(5)]
    one_of("model_type", model_type, *names)
    return "EfficientGCN" if model_type.startswith("EfficientGCN") else model_type


@dataclass(frozen=True)
class Config:
    """One resolved experiment. `name` is what was asked for: '2001', or the path of a file."""

    name: str
    model_args: Union[EfficientGCNArgs, STGCNArgs]  # noqa: UP007 - evaluated, and 3.9 has no X | Y
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
    work_dir: str = "./workdir"
    no_progress_bar: bool = False
    log_every: int = 0
    cpu_setup: bool = True

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, "Momentum", "Adam")
        one_of("lr_scheduler", self.lr_scheduler, "step", "cosine")
        check(0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")
        for name, least in (("base_batch_size", 0), ("accumulate", 1), ("log_every", 0)):
            check(getattr(self, name) >= least, name, getattr(self, name), f"{least} or more")
        check(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 (off) or more")
        smoothing = self.label_smoothing
        check(0 <= smoothing < 1, "label_smoothing", smoothing, "0 (off) to below 1")
        check(self.amp in ("", "bf16", "fp16"), "amp", self.amp, "bf16, fp16, or '' for float32")
        single = len(self.gpus) <= 1
        single = single and min(self.gpus, default=0) >= 0
        check(single, "gpus", list(self.gpus), "one GPU number from 0, or none for the CPU")
        name_ok = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.dataset)
        check(bool(name_ok), "dataset", self.dataset, "letters, digits, '.', '-' and '_'")
        if self.data.inputs in list("XYMN") and isinstance(self.model_args, EfficientGCNArgs):
            key = f"dataset_args.{self.data.group}.inputs"
            raise ConfigError(
                f"{key} is {self.data.inputs!r}, which EfficientGCN cannot take; allowed with "
                "EfficientGCN: J, V, B in any subset"
            )

    @property
    def data(self) -> ClipArgs:
        """The group of `dataset_args` that `dataset` belongs to."""
        return getattr(self.dataset_args, data_group(self.dataset))

    @property
    def max_epoch(self) -> int:
        """Of the schedule that is chosen."""
        return getattr(self.scheduler_args, self.lr_scheduler).max_epoch

    @property
    def run_name(self) -> str:
        """Folder of this experiment's runs below work_dir, e.g. '2001_EfficientGCN-B0_ntu-xsub'."""
        return f"{PurePath(self.name).stem}_{self.model_type}_{self.dataset}"
