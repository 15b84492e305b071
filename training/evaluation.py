"""Counting how often a network is right, over the clips of one process and of all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from errors import UserError
from report import Confusion
from training import parallel
from training.session import Session

if TYPE_CHECKING:
    from deploy.predictor import Predictor

# Logits (n, num_class) float32, labels (n,) and the numbers of their clips (n,).
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def evaluate(session: Session, bar: Iterable[Any]) -> tuple[Confusion, np.ndarray]:
    """Every clip of the session's evaluation data, once over all processes. bar: the session's
    loader, or what shows its progress.

    Returns the counts over all clips, the same in every process, and the logits of this process's
    clips (n, num_class) float32, in order.
    """

    def batches() -> Iterator[Batch]:
        for clips, labels, indices in bar:
            yield session.network(clips).numpy(), labels.numpy(), indices.numpy()

    session.network.eval()
    with paddle.no_grad():
        return _count(session, batches())


def evaluate_static(
    session: Session, predictor: Predictor, bar: Iterable[Sequence[int]]
) -> tuple[Confusion, np.ndarray]:
    """The same by a static model of the session's network, from raw clips. bar: the batches of
    the session's loader, each the numbers of its clips. Raises UserError for NaN in a clip."""
    data = session.eval.dataset.clips

    def batches() -> Iterator[Batch]:
        for indices in bar:
            try:
                logits = predictor.run(data.data[indices]).logits
            except UserError as error:
                raise UserError(
                    f"{data.path}, clips {indices[0]} to {indices[-1]}: {error}"
                ) from error
            yield logits, data.labels[indices], np.array(indices)

    return _count(session, batches())


def _count(session: Session, batches: Iterable[Batch]) -> tuple[Confusion, np.ndarray]:
    counts = Confusion(session.spec.num_class)
    rows = [np.zeros((0, session.spec.num_class), np.float32)]
    start = time.time()
    for logits, labels, indices in batches:
        count_batch(counts, logits, labels, indices, session.eval)
        rows.append(logits)
    counts = over_processes(counts)
    seconds, clips = time.time() - start, counts.num_sample
    logging.info(
        "Top-1 accuracy: %d/%d(%.2f%%), Top-5 accuracy: %d/%d(%.2f%%), Mean loss:%.4f",
        *(counts.num_top1, clips, 100 * counts.num_top1 / clips),
        *(counts.num_top5, clips, 100 * counts.num_top5 / clips, counts.mean_loss),
    )
    logging.info("Evaluating time: %.2fs, Speed: %.2f sequences/second", seconds, clips / seconds)
    return counts, np.concatenate(rows)


def count_batch(
    counts: Confusion,
    logits: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    loader: paddle.io.DataLoader,
) -> None:
    """Add a `Batch`, or say which clips (or which training) made it something not finite."""
    if not np.isfinite(logits).all():
        clips = loader.dataset.clips
        bad = [n for n in indices.tolist() if not np.isfinite(clips.data[n]).all()]
        if bad:
            names = ", ".join(clips.names[n] for n in bad[:3])
            raise UserError(f"{clips.path}: clip {names} holds NaN or infinity")
        raise UserError(
            "the network's output is not finite: training diverged; lower "
            "optimizer_args.*.learning_rate or raise warm_up"
        )
    counts.add(logits, labels)


def over_processes(counts: Confusion) -> Confusion:
    """The sum of all processes' counts."""
    whole = Confusion(len(counts.matrix))
    sums = parallel.summed(np.append(counts.matrix.ravel(), counts.num_top5))
    whole.matrix, whole.num_top5 = sums[:-1].reshape(whole.matrix.shape), int(sums[-1])
    whole.loss_sum = float(parallel.summed(np.array([counts.loss_sum]))[0])
    return whole
