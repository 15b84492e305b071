"""The built parts of a run, as `initializer.py` hands them to `processor.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from paddle.io import BatchSampler, DataLoader
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LambdaDecay

from configs.schema import Config
from dataset.feeder import ClipFeeder, StepSampler
from dataset.identity import Identity
from model.network import ClipNetwork
from training.tasks import Task

Sampler = TypeVar("Sampler", bound=BatchSampler)


@dataclass(frozen=True)
class Data(Generic[Sampler]):
    """Clips of one split. loader: the feeder's items in the sampler's batches."""

    feeder: ClipFeeder
    sampler: Sampler
    loader: DataLoader


@dataclass(frozen=True)
class Session:
    """The parts of an evaluation. eval: None in a training without evaluation. identity: of the
    weights (dataset/identity.py); a training's names its clips too."""

    config: Config
    task: Task
    network: ClipNetwork
    eval: Data[BatchSampler] | None
    identity: Identity


@dataclass(frozen=True)
class TrainingSession(Session):
    """The parts of a training. evaluates_after: whether an epoch, counted from 1, is evaluated."""

    train: Data[StepSampler]
    scheduler: LambdaDecay
    optimizer: Optimizer
    evaluates_after: Callable[[int], bool]
