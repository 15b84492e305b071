"""Clips on disk -> batches for the networks, through paddle.io."""

from __future__ import annotations

import ctypes
import logging
import shutil
import signal
import sys
from collections.abc import Iterator

import numpy as np
from paddle.io import BatchSampler, DataLoader, Dataset

from dataset.pipeline import ClipPipeline, unusable
from dataset.protocols import DataSpec
from dataset.storage import ClipSet
from errors import UserError

PREFETCH = 2  # batches that a worker prepares ahead
SHARED_MEMORY = "/dev/shm"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


class ClipFeeder(Dataset):
    """Item n: (clip tensor (M*V, I*C, T) float32, label int64, `number` of n). Whoever takes a
    batch calls `check`: an error raised in a worker process of Paddle reaches the user as a
    traceback.

    The augmentation of clip n depends only on the seed, the epoch and n, so it is independent of
    the number of worker processes and of resuming.
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
        """limit: use only the first clips. Raises UserError if data and settings disagree."""
        super().__init__()
        _, _, t, v, m = clips.data.shape
        labels = clips.required_labels()
        if (v, m) != (spec.skeleton.num_joint, spec.num_person) or t < pipeline.min_frames:
            raise UserError(
                f"{clips.path}: {v} joints, {m} persons and {t} frames; the configuration needs "
                f"{spec.skeleton.num_joint} joints ({spec.skeleton.name}), {spec.num_person} "
                f"persons and {pipeline.min_frames} frames or more"
            )
        top = spec.num_class - 1
        if labels.max() > top:
            raise UserError(f"{clips.path}: label {labels.max()}; allowed: 0 to {top}")
        self.clips, self.skeleton, self.pipeline = clips, spec.skeleton, pipeline
        self.seed, self.epoch = seed, 0
        size = min(len(clips), limit or len(clips))
        self.names, self.labels = clips.names[:size], labels[:size]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def item_bytes(self) -> int:
        """Size of a clip tensor."""
        pipeline, (_, _, _, v, m) = self.pipeline, self.clips.data.shape
        return 4 * m * v * sum(pipeline.channels) * pipeline.num_frame

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64, np.int64]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        clip = self.pipeline.prepare(self.clips.data[index], self.skeleton, rng)
        tensor = self.pipeline.features(clip, self.skeleton)
        return tensor, self.labels[index], self.number(index)

    def number(self, index: int) -> np.int64:
        """The number of a clip in a batch: its index, or -1 - index if no network can use it."""
        return np.int64(-1 - index if unusable(self.clips.data[index]) else index)

    def check(self, numbers: np.ndarray) -> None:
        """Raises UserError where one of the numbers of a batch (N,) is that of an unusable clip."""
        for index in (-1 - n for n in numbers.tolist() if n < 0):
            raise UserError(
                f"{self.clips.path}: clip {self.names[index]} holds "
                f"{unusable(self.clips.data[index])}; remove it from the recordings, or skip it "
                "with on_bad_file=skip, and generate the data again: main.py -gd"
            )


class StepSampler(BatchSampler):
    """Shuffled batches of one process (`rank`), for steps of several processes and batches.

    All clips are shuffled in an order that depends only on `epoch`, and divided into batches. A
    step takes the next world_size * accumulate batches: process r gets batches r, r + world_size,
    ... of each step. So a step of 2 processes has the same clips as a step of one process that
    accumulates 2 batches. Clips that do not fill a last step are dropped, unless a single process
    without accumulation has fewer clips than one batch, which then is the only one.
    """

    def __init__(
        self, size: int, batch_size: int, *, rank: int = 0, world_size: int = 1, accumulate: int = 1
    ) -> None:
        """size: number of clips. Raises UserError if they do not fill one step."""
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
        """epoch: 0 to 2**32 - 1, the seed of the order of clips."""
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


def data_loader(
    feeder: Dataset, sampler: BatchSampler, num_workers: int, item_bytes: int
) -> DataLoader:
    """The sampler's batches of a feeder, prepared by worker processes; 0 for none. They hand over
    batches in shared memory, where the machine has enough of it. item_bytes: size of an item."""
    waiting = num_workers * PREFETCH + 1  # batches
    needed = waiting * sampler.batch_size * item_bytes
    return DataLoader(
        feeder,
        batch_sampler=sampler,
        num_workers=num_workers,
        prefetch_factor=PREFETCH,
        use_shared_memory=num_workers > 0 and _fits_shared_memory(needed, _free_shared_memory()),
        worker_init_fn=_end_with_parent,
    )


def _fits_shared_memory(needed: int, free: int) -> bool:
    """Whether batches of `needed` bytes fit, beside as much for another loader. Where they did not,
    Linux would end the process with a bus error: Docker gives a container 64 MB."""
    fits = 2 * needed <= free
    if not fits:
        logging.warning(
            "Shared memory (%s) has %.0f MB free, the loader needs up to %.0f MB: batches go "
            "through pipes, which is slower; in Docker: --shm-size=1g",
            *(SHARED_MEMORY, free / 1e6, 2 * needed / 1e6),
        )
    return fits


def _free_shared_memory() -> int:
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # not mounted
        return 0


def _end_with_parent(worker: int) -> None:
    """Paddle's workers would otherwise wait for work forever after their parent was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
