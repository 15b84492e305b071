"""Streams through a step in dygraph, shared by several tests."""

from __future__ import annotations

import numpy as np
import paddle

from model.network import ClipNetwork
from model.streaming.network import StreamingNetwork
from model.streaming.state import StreamState, advance


def tensors_of(network: ClipNetwork, frames: int, rows: int = 1, seed: int = 0) -> np.ndarray:
    """Random features (P, V, I*C, T)."""
    shape = (rows, network.num_joint, sum(network.branch_channels), frames)
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def clip_logits(network: ClipNetwork, clip: np.ndarray) -> np.ndarray:
    """Of each row as a clip of its own, (P, num_class)."""
    with paddle.no_grad():
        return network(paddle.to_tensor(clip)).numpy()


class Player:
    """Streams of one row each, which may start and end at different steps of one batch."""

    def __init__(self, streaming: StreamingNetwork, clips: list[np.ndarray]) -> None:
        """clips: (1, V, I*C, T) each."""
        self.streaming, self.plan, self.clips = streaming, streaming.plan, clips
        self.states = [StreamState(self.plan, 1) for _ in clips]
        self.logits: list[dict[int, np.ndarray]] = [{} for _ in clips]  # by position

    def step(self, numbers: list[int]) -> None:
        """One step of these streams."""
        chunk, chunks, lengths = self.plan.chunk, [], []
        for n in numbers:
            first, length = self.states[n].first, self.clips[n].shape[-1]
            frames = self.clips[n][..., first : first + chunk]
            missing = chunk - frames.shape[-1]
            # Not zeros: what comes after the end must not matter.
            chunks.append(np.pad(frames, [(0, 0)] * 3 + [(0, missing)], constant_values=7.0))
            lengths.append(length if missing else None)
        firsts = [self.states[n].first for n in numbers]
        states = [self.states[n] for n in numbers]
        rows = advance(self.streaming.run, self.plan, states, chunks, lengths)
        for n, first, length, row in zip(numbers, firsts, lengths, rows):
            for at, position in enumerate(self.plan.positions(first, length)):
                if position is not None:
                    self.logits[n][position] = row[0, :, at]

    @property
    def open(self) -> list[int]:
        """Streams that have not given all of their positions."""
        steps = [self.plan.steps(clip.shape[-1]) for clip in self.clips]
        return [n for n, s in enumerate(self.states) if s.first < steps[n] * self.plan.chunk]

    def clip_logits(self, n: int) -> np.ndarray:
        """The mean over the positions of the clip network."""
        stride = self.plan.stride
        counted = [row for at, row in sorted(self.logits[n].items()) if at % stride == 0]
        assert len(counted) == -(-self.clips[n].shape[-1] // stride)
        return np.mean(counted, axis=0)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected number."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())
