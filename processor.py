"""Session -> training and evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import utils
from report import Confusion, write_curves, write_evaluation, write_scores
from training import parallel, run_state
from training.board import Board, open_board
from training.evaluation import count_batch, evaluate, evaluate_static, over_processes
from training.run_state import Progress
from training.session import Session
from training.step import TrainingStep

if TYPE_CHECKING:
    from deploy.predictor import Predictor


class Processor:
    """Runs a session. run_dir: where checkpoints, tables and pictures of this run go; None in
    those of several processes that do not write. settings: the resolved config as text; it
    travels in checkpoints, and a run resumes only with its own."""

    def __init__(self, session: Session, run_dir: Path | None, settings: str) -> None:
        self.session, self.run_dir, self.settings = session, run_dir, settings
        self.config = session.config
        self.max_epoch = self.config.max_epoch
        # A launcher's console is a file, where a bar is only noise.
        self.shows_bar = not self.config.no_progress_bar and parallel.world().size == 1
        self.board: Board | None = open_board(run_dir) if run_dir is not None else None

    def train(self, checkpoint: Path | None = None) -> dict[str, Any]:
        """Train to the last epoch, from the first or from a checkpoint of this run.

        Leaves last.pdparams, best.pdparams, curves.csv and curves.png in run_dir, and confusion
        and per_class tables of the best epoch, and returns the best state: acc_top1, acc_top5,
        cm, epoch.
        """
        start = time.time()
        step = TrainingStep(self.session)
        progress = Progress()
        if checkpoint is not None:
            progress = run_state.restore(checkpoint, self.session, self.settings, step.scaler)
        if progress.epoch >= self.max_epoch:
            logging.info("This run is complete: nothing to resume in %s", self.run_dir)
        self._open_books(progress)
        logging.info("Starting training ...")
        while progress.epoch < self.max_epoch:
            row = self._train_epoch(step, progress.epoch)
            progress.epoch += 1
            progress.history.append(row)
            if self.session.evaluates_after(progress.epoch):
                self._evaluate_epoch(step, progress, row)
            self._save("last", step, progress)
            if self.board is not None:
                self.board.add_epoch(row)
            logging.info(
                "Best top-1 accuracy: %.2f%%, Total time: %s",
                100 * progress.best_state["acc_top1"],
                utils.format_duration(time.time() - start),
            )
        self._close_books(progress)
        logging.info("Finish training!")
        return progress.best_state

    def evaluate(self, predictor: Predictor | None = None) -> Confusion:
        """Evaluate on every clip of the session's split and leave confusion.csv, confusion.png,
        per_class.csv and the scores of every clip in run_dir. predictor: a static model of the
        network, which then answers in its place."""
        logging.info("Starting evaluating ...")
        loader = self.session.eval
        if predictor is None:
            counts, logits = evaluate(self.session, self._bar(loader))
        else:
            bar = self._bar(loader.batch_sampler)
            counts, logits = evaluate_static(self.session, predictor, bar)
        feeder, names = loader.dataset, self.session.spec.class_names
        logits = parallel.gathered(logits, len(feeder))
        logging.info("Mean class accuracy: %.2f%%", 100 * counts.mean_class_accuracy)
        for true, predicted, clips in counts.worst_pairs():
            logging.info("Confused: %s -> %s, %d clips", names[true], names[predicted], clips)
        if self.run_dir is not None:
            labels = feeder.clips.labels[: len(feeder)]
            write_scores(self.run_dir, feeder.clips.names[: len(feeder)], labels, logits)
            self._write_confusion(counts, epoch=0)
        if self.board is not None:
            self.board.close()
        logging.info("Finish evaluating! Tables and pictures: %s", self.run_dir)
        return counts

    def _train_epoch(self, step: TrainingStep, epoch: int) -> dict[str, Any]:
        """One pass over the training clips; returns its row of the curves."""
        session, config, rank = self.session, self.config, parallel.world().rank
        utils.set_seed(config.seed, epoch, rank)
        session.train.batch_sampler.set_epoch(config.seed * 1_000_003 % 2**31 + epoch)
        session.train.dataset.epoch = epoch
        session.network.train()
        start, first_rate = time.time(), session.optimizer.get_lr()
        counts = Confusion(session.spec.num_class)
        batches = iter(session.train)
        bar = self._bar(range(1, session.train.batch_sampler.num_steps + 1))
        lines = StepLines(config.log_every or not self.shows_bar, epoch, self.max_epoch, len(bar))
        with logging_redirect_tqdm():
            for n in bar:
                loss = 0.0
                for _ in range(config.accumulate):
                    clips, labels, indices = next(batches)
                    part, logits = step.backward(clips, labels)
                    loss += part / config.accumulate
                    batch = (logits.numpy(), labels.numpy(), indices.numpy())
                    count_batch(counts, *batch, session.train)
                rate = step.update()
                lines.add(n, loss, rate, counts.num_sample)
                if isinstance(bar, tqdm):
                    bar.set_description(f"Loss: {loss:.4f}, LR: {rate:.4f}")
        counts = over_processes(counts)
        parallel.average_statistics(session.network)
        accuracy = counts.num_top1 / counts.num_sample
        logging.info(
            "Epoch: %d/%d, Training accuracy: %d/%d(%.2f%%), Training time: %.2fs",
            *(epoch + 1, self.max_epoch, counts.num_top1, counts.num_sample),
            *(100 * accuracy, time.time() - start),
        )
        return {
            "epoch": epoch + 1,
            "learning_rate": first_rate,
            "train_loss": counts.mean_loss,
            "train_accuracy": accuracy,
            "eval_loss": None,
            "eval_accuracy": None,
        }

    def _evaluate_epoch(self, step: TrainingStep, progress: Progress, row: dict[str, Any]) -> None:
        logging.info("Evaluating for epoch %d/%d ...", progress.epoch, self.max_epoch)
        counts, _ = evaluate(self.session, self._bar(self.session.eval))
        accuracy = counts.num_top1 / counts.num_sample
        row.update(eval_loss=counts.mean_loss, eval_accuracy=accuracy)
        is_first = progress.best_state["epoch"] == 0
        if is_first or accuracy > progress.best_state["acc_top1"]:
            progress.best_state = {
                "acc_top1": accuracy,
                "acc_top5": counts.num_top5 / counts.num_sample,
                "cm": counts.matrix,
                "epoch": progress.epoch,
            }
            # Before last: a kill in between repeats the epoch.
            self._save("best", step, progress)

    def _save(self, name: str, step: TrainingStep, progress: Progress) -> None:
        if self.run_dir is None:
            return
        logging.info("Saving model for epoch %d/%d ...", progress.epoch, self.max_epoch)
        path = self.run_dir / f"{name}.pdparams"
        run_state.save(path, self.session, progress, self.settings, step.scaler)

    def _open_books(self, progress: Progress) -> None:
        """VisualDL shows one file a run, so a resumed session begins with the epochs before it."""
        if self.board is None:
            return
        for row in progress.history:
            self.board.add_epoch(row)
        if not progress.history:
            clip_tensor, _, _ = self.session.eval.dataset[0]
            self.board.add_graph(self.session.network, clip_tensor.shape)

    def _close_books(self, progress: Progress) -> None:
        if self.run_dir is not None:
            write_curves(self.run_dir, progress.history)
            best = Confusion(self.session.spec.num_class)
            best.matrix = np.asarray(progress.best_state["cm"])
            self._write_confusion(best, progress.best_state["epoch"])
        if self.board is not None:
            self.board.close()

    def _write_confusion(self, counts: Confusion, epoch: int) -> None:
        write_evaluation(self.run_dir, counts, self.session.spec.class_names)
        if self.board is not None:
            self.board.add_picture("confusion", self.run_dir / "confusion.png", epoch)

    def _bar(self, items: Iterable[Any]) -> Iterable[Any]:
        return tqdm(items, dynamic_ncols=True) if self.shows_bar else items


class StepLines:
    """A log line every so many steps of an epoch. every: 0 for none."""

    def __init__(self, every: int, epoch: int, max_epoch: int, num_steps: int) -> None:
        self.every, self.num_steps = int(every), num_steps
        self.position = f"Epoch: {epoch + 1}/{max_epoch}"
        self.start, self.clips = time.time(), 0

    def add(self, step: int, loss: float, rate: float, clips: int) -> None:
        """step: counted from 1. clips: that this process has seen in this epoch so far."""
        if not self.every or step % self.every:
            return
        now = time.time()
        speed = (clips - self.clips) * parallel.world().size / max(now - self.start, 1e-9)
        logging.info(
            "%s, Batch: %d/%d, Loss: %.4f, LR: %.4f, Speed: %.2f clips/s",
            *(self.position, step, self.num_steps, loss, rate, speed),
        )
        self.start, self.clips = now, clips
