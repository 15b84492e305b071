"""Metrics over every clip of a split, by the network or by a static model of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from dataset.feeder import ClipFeeder
from errors import UserError
from model.network import ClipNetwork
from training.session import Session
from training.tasks import Metrics

if TYPE_CHECKING:
    from deploy.predictor import Predictor

DIVERGED = "training diverged; lower optimizer_args.*.learning_rate or raise warm_up"

# Outputs (N, ...) float32, targets (N, ...) and the numbers of their clips (N,).
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def evaluate(
    session: Session, feeder: ClipFeeder, batches: Iterable[Batch]
) -> tuple[Metrics, list[np.ndarray]]:
    """Returns the metrics of all clips of a feeder, equal in all processes, and this process's
    outputs."""
    metrics, rows = session.task.new_metrics(), []
    copies = [n for n in feeder.clips.copies() if n < len(feeder)]  # of training clips
    others = session.task.new_metrics()  # of all clips but these
    start = time.time()
    with paddle.no_grad():
        for outputs, targets, indices in batches:
            check_finite(outputs)
            metrics.add(outputs, targets)
            rows.append(outputs)
            if copies:
                keep = ~np.isin(indices, copies)
                others.add(outputs[keep], targets[keep])
        metrics.merge()
    seconds = time.time() - start
    logging.info(metrics.evaluation_line())
    if copies:
        others.merge()
        text = others.evaluation_line()
        logging.info("Without %d copies of training clips: %s", len(copies), text)
    speed = len(feeder) / seconds
    logging.info("Evaluating time: %.2fs, Speed: %.2f sequences/second", seconds, speed)
    return metrics, rows


def dygraph_batches(
    network: ClipNetwork, feeder: ClipFeeder, bar: Iterable[Any]
) -> Iterator[Batch]:
    """Run a network. bar: over the feeder's loader. Raises UserError for an unusable clip."""
    network.eval()
    for clips, targets, indices in bar:
        feeder.check(indices.numpy())
        yield network(clips).numpy(), targets.numpy(), indices.numpy()


def static_batches(
    feeder: ClipFeeder, predictor: Predictor, bar: Iterable[Sequence[int]]
) -> Iterator[Batch]:
    """Run a static model on raw clips. bar: over the sampler. Raises UserError for an unusable
    clip."""
    lengths = feeder.clips.tail_lengths
    for indices in bar:
        feeder.check(np.array([feeder.number(n) for n in indices]))
        known = [lengths[n] for n in indices] if lengths else None
        try:
            logits = predictor.run(feeder.clips.data[indices], known).logits
        except UserError as error:
            clips = f"{feeder.clips.path}, clips {indices[0]} to {indices[-1]}"
            raise UserError(f"{clips}: {error}") from error
        yield logits, feeder.labels[indices], np.array(indices)


def check_finite(outputs: np.ndarray) -> None:
    """Raises UserError for NaN or infinity in the outputs of usable clips."""
    if not np.isfinite(outputs).all():
        raise UserError(f"the network's output is not finite: {DIVERGED}")
