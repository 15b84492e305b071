"""The built parts of a run, and one optimizer step of its training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import paddle
from paddle.io import BatchSampler, DataLoader
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LambdaDecay

from configs.schema import Config
from dataset.feeder import ClipFeeder, StepSampler
from model.network import ClipNetwork
from training import parallel
from training.tasks import Task

Sampler = TypeVar("Sampler", bound=BatchSampler)
_AMP_TYPES: dict[str, Literal["bfloat16", "float16"]] = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Data(Generic[Sampler]):
    """Clips of one split. loader: the feeder's items in the sampler's batches."""

    feeder: ClipFeeder
    sampler: Sampler
    loader: DataLoader


@dataclass(frozen=True)
class Session:
    """The parts of an evaluation."""

    config: Config
    task: Task
    network: ClipNetwork
    eval: Data[BatchSampler]


@dataclass(frozen=True)
class TrainingSession(Session):
    """The parts of a training. evaluates_after: whether an epoch, counted from 1, is evaluated."""

    train: Data[StepSampler]
    scheduler: LambdaDecay
    optimizer: Optimizer
    evaluates_after: Callable[[int], bool]


class TrainingStep:
    """Call `backward` for each of the `accumulate` micro-batches, then `update`. The gradient is
    the mean over all clips of the step: all micro-batches have the same number of clips."""

    def __init__(self, session: TrainingSession) -> None:
        """Waits for the other processes and copies the weights of rank 0 to all of them."""
        self.session, self.config = session, session.config
        self.replica = parallel.replicate(session.network)
        # Scales small gradients above the smallest float16 number; bfloat16 does not need it.
        self.scaler = paddle.amp.GradScaler() if self.config.amp == "fp16" else None

    def backward(self, clips: paddle.Tensor, targets: paddle.Tensor) -> tuple[float, paddle.Tensor]:
        """Add a micro-batch's part of the gradient. Returns its loss and outputs, float32."""
        amp = self.config.amp
        precision = paddle.amp.auto_cast(dtype=_AMP_TYPES[amp]) if amp else nullcontext()
        with parallel.own_gradients(self.replica):
            with precision:
                outputs = self.replica(clips)
            outputs = outputs.astype("float32")
            loss = self.session.task.loss(outputs, targets)
            part = loss / self.config.accumulate
            (part if self.scaler is None else self.scaler.scale(part)).backward()
        return float(loss), outputs

    def update(self) -> float:
        """Average the gradient over processes and update the weights. Returns the learning rate
        of this update."""
        parallel.share_gradients(self.session.network)
        optimizer, rate = self.session.optimizer, self.session.optimizer.get_lr()
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        optimizer.clear_grad()
        self.session.scheduler.step()
        return rate
