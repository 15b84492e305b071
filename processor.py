"""Session -> training and evaluation."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import utils
from configs.schema import Config
from errors import UserError
from report import write_curves
from training import parallel, run_state
from training.board import open_board
from training.evaluation import check_finite, dygraph_batches, evaluate, static_batches
from training.run_state import Progress
from training.session import Session, TrainingSession
from training.step import TrainingStep
from training.tasks import Metrics

if TYPE_CHECKING:
    from deploy.predictor import Predictor

LOG_LINES = 20  # of an epoch without a progress bar


class Processor:
    """Trains or evaluates a session. run_dir: where checkpoints, tables and figures go; None in
    those of several processes that write no files."""

    def __init__(self, config: Config, run_dir: Path | None) -> None:
        self.config, self.run_dir = config, run_dir
        # A launcher writes the console to a file, where a progress bar is of no use.
        self.shows_bar = not config.no_progress_bar and parallel.world().size == 1
        self.board = open_board(run_dir) if run_dir is not None else None

    def train(self, session: TrainingSession, checkpoint: Path | None = None) -> Progress:
        """Train to the last epoch, from the first or from a checkpoint of this run. Leaves
        checkpoints, curves and the best epoch's tables in run_dir."""
        start, max_epoch = time.time(), self.config.max_epoch
        step, progress = TrainingStep(session), Progress(session.task.new_metrics())
        if checkpoint is not None:
            progress = run_state.restore(checkpoint, step)
        self._start_reporting(session, progress)
        trains = progress.epoch < max_epoch
        complete = f"This run is complete: nothing to resume in {self.run_dir}"
        logging.info("Starting training ..." if trains else complete)
        while progress.epoch < max_epoch:
            row = self._train_epoch(step, progress.epoch)
            progress.epoch += 1
            progress.history.append(row)
            if session.eval is not None and session.evaluates_after(progress.epoch):
                logging.info("Evaluating for epoch %d/%d ...", progress.epoch, max_epoch)
                feeder, bar = session.eval.feeder, self._bar(session.eval.loader)
                batches = dygraph_batches(session.network, feeder, bar)
                metrics, _ = evaluate(session, feeder, batches)
                row.update(run_state.curve_values("eval", metrics))
                if progress.best_epoch == 0 or metrics.score > progress.best.score:
                    progress.best, progress.best_epoch = metrics, progress.epoch
                    # Before last.pdparams: a kill in between repeats the epoch.
                    self._save("best", step, progress)
            self._save("last", step, progress)
            if self.board is not None:
                self.board.add_epoch(row)
            total = utils.format_duration(time.time() - start)
            best = f"{progress.best.best_line()}, " if progress.best_epoch else ""
            logging.info("%sTotal time: %s", best, total)
        if self.run_dir is not None:
            write_curves(self.run_dir, progress.history, progress.best.curves)
        if progress.best_epoch:
            num = sum(map(session.evaluates_after, range(1, max_epoch + 1)))
            note = f"epoch {progress.best_epoch}, the best of {num} evaluated on this split"
            if trains:
                logging.info("Tables and figures: %s, so their accuracy is optimistic", note)
            self._write_metrics(progress.best, progress.best_epoch, note)
        if self.board is not None:
            self.board.writer.close()
        if trains:
            logging.info("Finish training!")
        return progress

    def evaluate(self, session: Session, predictor: Predictor | None = None) -> Metrics:
        """Evaluate every clip of the session's split; leaves tables and outputs in run_dir.
        predictor: a static model of the network, to run instead."""
        logging.info("Starting evaluating ...")
        data = session.eval
        if data is None:
            raise UserError("there are no clips to evaluate")
        if predictor is None:
            batches = dygraph_batches(session.network, data.feeder, self._bar(data.loader))
        else:
            batches = static_batches(data.feeder, predictor, self._bar(data.sampler))
        metrics, outputs = evaluate(session, data.feeder, batches)
        for line in metrics.details():
            logging.info(line)
        session.task.write_outputs(self.run_dir, data.feeder, outputs)
        self._write_metrics(metrics, epoch=0)
        if self.board is not None:
            self.board.writer.close()
        logging.info("Finish evaluating! Tables and figures: %s", self.run_dir)
        return metrics

    def _train_epoch(self, step: TrainingStep, epoch: int) -> dict[str, Any]:
        """One pass over the training clips. Returns its row of the curves."""
        session, config, data = step.session, self.config, step.session.train
        utils.set_seed(config.seed, epoch, parallel.world().rank)
        data.sampler.set_epoch(config.seed * 1_000_003 % 2**31 + epoch)
        data.feeder.epoch = epoch
        session.network.train()
        start, first_rate = time.time(), session.optimizer.get_lr()
        metrics, batches = session.task.new_metrics(), iter(data.loader)
        num_steps, position = data.sampler.num_steps, f"Epoch: {epoch + 1}/{config.max_epoch}"
        bar = self._bar(range(1, num_steps + 1))
        logged, num_clip = time.time(), 0  # of the last log line; clips since then
        every = config.log_every or (0 if self.shows_bar else math.ceil(num_steps / LOG_LINES))
        with logging_redirect_tqdm():
            for n in bar:
                loss, clips = self._micro_batches(step, batches, metrics)
                rate, num_clip = step.update(), num_clip + clips
                shown = f"Loss: {loss:.4f}, LR: {rate:.4f}"
                if isinstance(bar, tqdm):
                    bar.set_description(shown)
                if every and (n % every == 0 or (n == num_steps and not config.log_every)):
                    now = time.time()
                    speed = num_clip * parallel.world().size / max(now - logged, 1e-9)
                    shown = f"Batch: {n}/{num_steps}, {shown}"
                    logging.info("%s, %s, Speed: %.2f clips/s", position, shown, speed)
                    logged, num_clip = now, 0
        metrics.merge()
        parallel.average_statistics(session.network)
        seconds = time.time() - start
        logging.info("%s, %s, Training time: %.2fs", position, metrics.training_line(), seconds)
        row: dict[str, Any] = dict.fromkeys(run_state.columns(metrics))
        row.update(run_state.curve_values("train", metrics))
        return {**row, "epoch": epoch + 1, "learning_rate": first_rate}

    def _micro_batches(
        self, step: TrainingStep, batches: Iterator[Any], metrics: Metrics
    ) -> tuple[float, int]:
        """The backward passes of a step. Returns its loss and its number of clips."""
        loss, num_clip = 0.0, 0
        for _ in range(self.config.accumulate):
            clips, targets, indices = next(batches)
            step.session.train.feeder.check(indices.numpy())
            part, tensor = step.backward(clips, targets)
            loss += part / self.config.accumulate
            outputs = tensor.numpy()
            check_finite(outputs)
            metrics.add(outputs, targets.numpy())
            num_clip += len(indices)
        return loss, num_clip

    def _save(self, name: str, step: TrainingStep, progress: Progress) -> None:
        if self.run_dir is not None:
            logging.info("Saving model for epoch %d/%d ...", progress.epoch, self.config.max_epoch)
            run_state.save(self.run_dir / f"{name}.pdparams", step, progress)

    def _start_reporting(self, session: TrainingSession, progress: Progress) -> None:
        """VisualDL shows one file per run, so a resumed session repeats the epochs before it."""
        if self.board is None:
            return
        for row in progress.history:
            self.board.add_epoch(row)
        if not progress.history:
            clip_tensor, _, _ = session.train.feeder[0]
            self.board.add_graph(session.network, clip_tensor.shape)

    def _write_metrics(self, metrics: Metrics, epoch: int, note: str = "") -> None:
        """Tables and figures of an evaluation. note: what the reader of a figure must know."""
        figures = metrics.write(self.run_dir, note) if self.run_dir is not None else {}
        if self.board is not None:
            for name, png in figures.items():
                if not os.path.exists(png):  # it could not be drawn, which the log says
                    continue
                self.board.add_figure(name, png, epoch)

    def _bar(self, items: Iterable[Any]) -> Iterable[Any]:
        return tqdm(items, dynamic_ncols=True) if self.shows_bar else items
