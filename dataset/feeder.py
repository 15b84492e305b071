"""Clips on disk -> batches for the networks, through paddle.io."""

from __future__ import annotations

import numpy as np
from paddle.io import BatchSampler, DataLoader, Dataset, DistributedBatchSampler

from dataset.features import clip_tensor
from dataset.skeletons import Skeleton
from dataset.storage import ClipSet
from safe_io import UserError


class ClipFeeder(Dataset):
    """Item n: (clip tensor (M*V, I*C, T) float32, label int64, n int64)."""

    def __init__(
        self,
        clips: ClipSet,
        skeleton: Skeleton,
        *,
        inputs: str,
        num_frame: int,
        num_class: int,
        limit: int | None = None,
    ) -> None:
        """limit: use only the first clips. Raises UserError where data and settings disagree."""
        super().__init__()
        _, _, t, v, _ = clips.data.shape
        if clips.labels is None:
            raise UserError(f"{clips.path}: has no label file beside it")
        if v != skeleton.num_joint or t < num_frame:
            raise UserError(
                f"{clips.path}: {v} joints and {t} frames; the configuration wants "
                f"{skeleton.num_joint} joints ({skeleton.name}) and {num_frame} frames or more"
            )
        if clips.labels.max() >= num_class:
            raise UserError(
                f"{clips.path}: label {clips.labels.max()}; allowed: 0 to {num_class - 1}"
            )
        self.clips, self.skeleton, self.inputs, self.num_frame = clips, skeleton, inputs, num_frame
        self.size = min(len(clips), limit or len(clips))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64, np.int64]:
        clip = self.clips.data[index]
        tensor = clip_tensor(clip, self.skeleton, self.inputs, self.num_frame)
        return tensor, self.clips.labels[index], np.int64(index)


def train_loader(feeder: ClipFeeder, batch_size: int, num_workers: int) -> DataLoader:
    """Shuffled batches; the order depends only on `loader.batch_sampler.set_epoch(n)`. The last
    partial batch is left out, unless it is the only one."""
    sampler = DistributedBatchSampler(
        feeder,
        batch_size,
        num_replicas=1,
        rank=0,
        shuffle=True,
        drop_last=len(feeder) >= batch_size,
    )
    return DataLoader(feeder, batch_sampler=sampler, num_workers=num_workers)


def eval_loader(feeder: ClipFeeder, batch_size: int, num_workers: int) -> DataLoader:
    """Every clip once, in order."""
    sampler = BatchSampler(feeder, shuffle=False, batch_size=batch_size, drop_last=False)
    return DataLoader(feeder, batch_sampler=sampler, num_workers=num_workers)
