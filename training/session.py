"""The built parts of a run, as `initializer.py` hands them to `processor.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

from paddle.io import DataLoader
from paddle.optimizer import Adam, Momentum
from paddle.optimizer.lr import LambdaDecay

from configs.schema import Config
from dataset.protocols import DataSpec
from model.network import ClipNetwork

Optimizer = Union[Momentum, Adam]


@dataclass(frozen=True)
class Session:
    """Built parts. Parts that the mode does not need are None."""

    config: Config
    spec: DataSpec
    network: ClipNetwork
    train: DataLoader | None = None
    eval: DataLoader | None = None
    scheduler: LambdaDecay | None = None
    optimizer: Optimizer | None = None
    evaluates_after: Callable[[int], bool] | None = None  # an epoch, counted from 1
