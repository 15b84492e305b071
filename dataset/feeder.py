"""Clips on disk -> batches for the networks, through paddle.io."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator

import numpy as np
from paddle.io import BatchSampler, DataLoader, Dataset

from dataset.pipeline import ClipPipeline
from dataset.protocols import DataSpec
from dataset.storage import ClipSet
from errors import UserError

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


class ClipFeeder(Dataset):
    """Item n: (clip tensor (M*V, I*C, T) float32, label int64, n int64).

    Random changes of clip n depend on the seed, the epoch and n alone, so neither the number of
    worker processes nor a resumed run changes them.
    """

    def __init__(
        self,
        clips: ClipSet,
        spec: DataSpec,
        pipeline: ClipPipeline,
        *,
        seed: int,
        limit: int | None = None,
    ) -> None:
        """limit: use only the first clips. Raises UserError where data and settings disagree."""
        super().__init__()
        _, _, t, v, m = clips.data.shape
        if clips.labels is None:
            raise UserError(f"{clips.path}: has no label file beside it")
        if (v, m) != (spec.skeleton.num_joint, spec.num_person) or t < pipeline.min_frames:
            raise UserError(
                f"{clips.path}: {v} joints, {m} persons and {t} frames; the configuration wants "
                f"{spec.skeleton.num_joint} joints ({spec.skeleton.name}), {spec.num_person} "
                f"persons and {pipeline.min_frames} frames or more"
            )
        if clips.labels.max() >= spec.num_class:
            raise UserError(
                f"{clips.path}: label {clips.labels.max()}; allowed: 0 to {spec.num_class - 1}"
            )
        self.clips, self.skeleton, self.pipeline = clips, spec.skeleton, pipeline
        self.seed, self.epoch = seed, 0
        size = min(len(clips), limit or len(clips))
        self.names, self.labels = clips.names[:size], clips.labels[:size]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64, np.int64]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        clip = self.pipeline.prepare(self.clips.data[index], self.skeleton, rng)
        tensor = self.pipeline.features(clip, self.skeleton)
        return tensor, self.labels[index], np.int64(index)


class StepSampler(BatchSampler):
    """Shuffled batches of one process, for steps that several processes and batches share.

    All clips are put into an order that depends only on `epoch`, and cut into batches. A step
    takes the next world_size * accumulate of them: process r gets, one after another, batches r,
    r + world_size, ... of each step. So 2 processes see in a step what a single one sees that
    accumulates 2 batches. Clips that do not fill a last step are left out, unless all of them
    together are the only batch of a single process.
    """

    def __init__(
        self, size: int, batch_size: int, *, rank: int = 0, world_size: int = 1, accumulate: int = 1
    ) -> None:
        """size: clips in all. Raises UserError where they do not fill one step."""
        self.size, self.batch_size, self.epoch = size, batch_size, 0
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        together = world_size * accumulate
        self.num_steps = size // (batch_size * together)
        if self.num_steps == 0 and together > 1:
            raise UserError(
                f"{size} training clips do not fill one step of train_batch_size {batch_size} x "
                f"{world_size} processes x accumulate {accumulate}; lower one of these"
            )
        self.num_steps = max(self.num_steps, 1)

    def __len__(self) -> int:
        return self.num_steps * self.accumulate

    def set_epoch(self, epoch: int) -> None:
        """epoch: any number from 0 to 2**32 - 1 that decides on the order of clips."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.RandomState(self.epoch).permutation(self.size).tolist()
        for n in range(len(self)):
            start = (n * self.world_size + self.rank) * self.batch_size
            yield order[start : start + self.batch_size]


def eval_sampler(size: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> BatchSampler:
    """Every world_size-th clip from `rank` on, once, in order: together the processes evaluate
    every clip exactly once. size: clips in all."""
    return BatchSampler(sampler=range(rank, size, world_size), batch_size=batch_size)


def data_loader(feeder: Dataset, sampler: BatchSampler, num_workers: int) -> DataLoader:
    """The sampler's batches of a feeder, prepared by worker processes; 0 for none."""
    return DataLoader(
        feeder, batch_sampler=sampler, num_workers=num_workers, worker_init_fn=_end_with_parent
    )


def _end_with_parent(worker: int) -> None:
    """Paddle's workers wait for work without end, also when who would send it was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
