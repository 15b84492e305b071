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
from training.session import Session
from training.tasks import Metrics

if TYPE_CHECKING:
    from deploy.predictor import Predictor

# Outputs (N, ...) float32, targets (N, ...) and the numbers of their clips (N,).
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def evaluate(session: Session, batches: Iterable[Batch]) -> tuple[Metrics, list[np.ndarray]]:
    """Returns the metrics of all clips, equal in all processes, and this process's outputs."""
    metrics, rows, feeder = session.task.new_metrics(), [], session.eval.feeder
    copies = [n for n in feeder.clips.copies() if n < len(feeder)]  # of training clips
    others = session.task.new_metrics()  # of all clips but these
    start = time.time()
    with paddle.no_grad():
        for outputs, targets, indices in batches:
            check_finite(outputs, indices, feeder)
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


def dygraph_batches(session: Session, bar: Iterable[Any]) -> Iterator[Batch]:
    """Run the session's network. bar: over the loader."""
    session.network.eval()
    for clips, targets, indices in bar:
        yield session.network(clips).numpy(), targets.numpy(), indices.numpy()


def static_batches(
    feeder: ClipFeeder, predictor: Predictor, bar: Iterable[Sequence[int]]
) -> Iterator[Batch]:
    """Run a static model on raw clips. bar: over the sampler. Raises UserError for NaN."""
    lengths = feeder.clips.tail_lengths
    for indices in bar:
        known = [lengths[n] for n in indices] if lengths else None
        try:
            logits = predictor.run(feeder.clips.data[indices], known).logits
        except UserError as error:
            clips = f"{feeder.clips.path}, clips {indices[0]} to {indices[-1]}"
            raise UserError(f"{clips}: {error}") from error
        yield logits, feeder.labels[indices], np.array(indices)


def check_finite(outputs: np.ndarray, indices: np.ndarray, feeder: ClipFeeder) -> None:
    """Raises UserError for NaN or infinity in a batch, and names the clips or the training."""
    if np.isfinite(outputs).all():
        return
    clips = feeder.clips
    bad = [n for n in indices.tolist() if not np.isfinite(clips.data[n]).all()]
    if bad:
        names = ", ".join(clips.names[n] for n in bad[:3])
        raise UserError(f"{clips.path}: clip {names} holds NaN or infinity")
    raise UserError(
        "the network's output is not finite: training diverged; lower "
        "optimizer_args.*.learning_rate or raise warm_up"
    )
