"""Session -> training and evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from tqdm import tqdm

import utils
from initializer import Session
from report import Confusion, write_curves, write_evaluation
from safe_io import UserError

_CURVE_KEYS = {
    *("epoch", "learning_rate", "train_loss", "train_accuracy", "eval_loss", "eval_accuracy")
}
_BEST_KEYS = {"acc_top1", "acc_top5", "cm", "epoch"}
_RESUME_KEYS = {"opt": dict, "epoch": int, "best_state": dict, "history": list, "config": str}


@dataclass
class Progress:
    """How far a training run is. epoch: epochs completed."""

    epoch: int = 0
    best_state: dict[str, Any] = field(
        default_factory=lambda: {"acc_top1": 0.0, "acc_top5": 0.0, "cm": 0, "epoch": 0}
    )
    history: list[dict[str, Any]] = field(default_factory=list)


class Processor:
    """Runs a session. run_dir: where checkpoints, tables and pictures of this run go. settings:
    the resolved config as text; it travels in checkpoints, and a run resumes only with its own."""

    def __init__(self, session: Session, run_dir: Path, settings: str) -> None:
        self.session, self.run_dir, self.settings = session, run_dir, settings
        self.config = session.config
        self.max_epoch = self.config.max_epoch

    def train(self, checkpoint: Path | None = None) -> dict[str, Any]:
        """Train to the last epoch, from the first or from a checkpoint of this run.

        Leaves last.pdparams, best.pdparams, curves.csv and curves.png in run_dir and returns
        the best state: acc_top1, acc_top5, cm, epoch.
        """
        start = time.time()
        progress = Progress() if checkpoint is None else self._resume(checkpoint)
        if progress.epoch >= self.max_epoch:
            logging.info("This run is complete: nothing to resume in %s", self.run_dir)
        logging.info("Starting training ...")
        while progress.epoch < self.max_epoch:
            row = self._train_epoch(progress.epoch)
            progress.epoch += 1
            progress.history.append(row)
            if self.session.evaluates_after(progress.epoch):
                self._evaluate_epoch(progress, row)
            self._save("last", progress)
            logging.info(
                "Best top-1 accuracy: %.2f%%, Total time: %s",
                100 * progress.best_state["acc_top1"],
                utils.format_duration(time.time() - start),
            )
        write_curves(self.run_dir, progress.history)
        logging.info("Finish training!")
        return progress.best_state

    def evaluate(self) -> Confusion:
        """Evaluate on every clip of the session's split, in order, and leave confusion.csv,
        confusion.png and per_class.csv in run_dir."""
        logging.info("Starting evaluating ...")
        confusion = self._count()
        names = self.session.spec.class_names
        logging.info("Mean class accuracy: %.2f%%", 100 * confusion.mean_class_accuracy)
        for true, predicted, clips in confusion.worst_pairs():
            logging.info("Confused: %s -> %s, %d clips", names[true], names[predicted], clips)
        write_evaluation(self.run_dir, confusion, names)
        logging.info("Finish evaluating! Tables and pictures: %s", self.run_dir)
        return confusion

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the training clips; returns its row of the curves."""
        network, optimizer = self.session.network, self.session.optimizer
        utils.set_seed(self.config.seed, epoch)
        self.session.train.batch_sampler.set_epoch(self.config.seed * 1_000_003 % 2**31 + epoch)
        self.session.train.dataset.epoch = epoch
        network.train()
        start, first_rate = time.time(), optimizer.get_lr()
        counts = Confusion(self.session.spec.num_class)
        bar = self._bar(self.session.train)
        for step, (clips, labels, indices) in enumerate(bar, 1):
            logits = network(clips)  # (N, num_class)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            rate = optimizer.get_lr()
            optimizer.step()
            optimizer.clear_grad()
            self.session.scheduler.step()
            self._count_batch(counts, logits, labels, indices, self.session.train)
            text = f"Loss: {float(loss):.4f}, LR: {rate:.4f}"
            if isinstance(bar, tqdm):
                bar.set_description(text)
            else:
                position = f"Epoch: {epoch + 1}/{self.max_epoch}, Batch: {step}/{len(bar)}"
                logging.info("%s, %s", position, text)
        logging.info(
            "Epoch: %d/%d, Training accuracy: %d/%d(%.2f%%), Training time: %.2fs",
            *(epoch + 1, self.max_epoch, counts.num_top1, counts.num_sample),
            *(100 * counts.num_top1 / counts.num_sample, time.time() - start),
        )
        return {
            "epoch": epoch + 1,
            "learning_rate": first_rate,
            "train_loss": counts.mean_loss,
            "train_accuracy": counts.num_top1 / counts.num_sample,
            "eval_loss": None,
            "eval_accuracy": None,
        }

    def _evaluate_epoch(self, progress: Progress, row: dict[str, Any]) -> None:
        logging.info("Evaluating for epoch %d/%d ...", progress.epoch, self.max_epoch)
        counts = self._count()
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
            self._save("best", progress)  # before last: a kill in between repeats the epoch

    def _count(self) -> Confusion:
        """Counts over every clip of the evaluation loader."""
        self.session.network.eval()
        counts = Confusion(self.session.spec.num_class)
        start = time.time()
        with paddle.no_grad():
            for clips, labels, indices in self._bar(self.session.eval):
                logits = self.session.network(clips)
                self._count_batch(counts, logits, labels, indices, self.session.eval)
        seconds, clips = time.time() - start, counts.num_sample
        logging.info(
            "Top-1 accuracy: %d/%d(%.2f%%), Top-5 accuracy: %d/%d(%.2f%%), Mean loss:%.4f",
            *(counts.num_top1, clips, 100 * counts.num_top1 / clips),
            *(counts.num_top5, clips, 100 * counts.num_top5 / clips, counts.mean_loss),
        )
        logging.info(
            "Evaluating time: %.2fs, Speed: %.2f sequences/second", seconds, clips / seconds
        )
        return counts

    @staticmethod
    def _count_batch(
        counts: Confusion,
        logits: paddle.Tensor,
        labels: paddle.Tensor,
        indices: paddle.Tensor,
        loader: paddle.io.DataLoader,
    ) -> None:
        """Add a batch, or say which clips (or which training) made it something not finite."""
        scores = logits.numpy()
        if not np.isfinite(scores).all():
            clips = loader.dataset.clips
            bad = [n for n in indices.tolist() if not np.isfinite(clips.data[n]).all()]
            if bad:
                names = ", ".join(clips.names[n] for n in bad[:3])
                raise UserError(f"{clips.path}: clip {names} holds NaN or infinity")
            raise UserError(
                "the network's output is not finite: training diverged; lower "
                "optimizer_args.*.learning_rate or raise warm_up"
            )
        counts.add(scores, labels.numpy())

    def _bar(self, loader: paddle.io.DataLoader) -> Iterable[Any]:
        if self.config.no_progress_bar:
            return loader
        return tqdm(loader, dynamic_ncols=True)

    def _save(self, name: str, progress: Progress) -> None:
        session = self.session
        logging.info("Saving model for epoch %d/%d ...", progress.epoch, self.max_epoch)
        content = {
            "model": utils.weights_of(session.network),
            "opt": utils.optimizer_state(session.network, session.optimizer),
            "scheduler": session.scheduler.state_dict(),
            "epoch": progress.epoch,
            "best_state": progress.best_state,
            "history": progress.history,
            "config": self.settings,
        }
        utils.save_checkpoint(self.run_dir / f"{name}.pdparams", content)

    def _resume(self, path: Path) -> Progress:
        session, content = self.session, utils.load_checkpoint(path)
        lacking = [
            key for key, kind in _RESUME_KEYS.items() if not isinstance(content.get(key), kind)
        ]
        rows, best = content.get("history"), content.get("best_state")
        if (
            lacking
            or not set(best) >= _BEST_KEYS
            or any(not isinstance(row, dict) or set(row) != _CURVE_KEYS for row in rows)
        ):
            raise UserError(
                f"{path}: not a checkpoint that a run can be resumed from (missing or odd: "
                f"{', '.join(lacking) or 'history or best_state'}); to start from its weights, "
                "leave out -r"
            )
        changed = utils.different_keys(content["config"], self.settings)
        if changed:
            raise UserError(
                f"{path}: was trained with other settings of {', '.join(changed[:6])}; "
                f"resume with those of {path.parent / 'config.yaml'}"
            )
        utils.load_weights(session.network, content["model"], source=path)
        utils.load_optimizer_state(session.network, session.optimizer, content["opt"], source=path)
        session.scheduler.last_epoch = content["epoch"] * len(session.train)
        session.scheduler.last_lr = session.scheduler.get_lr()
        logging.info("Resuming %s after epoch %d", path, content["epoch"])
        return Progress(content["epoch"], best, list(rows))
