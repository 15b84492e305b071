"""The contract of all networks, and what they share: split by person, pooling, classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D
from model.tail import Tail
from model.timing import Geometry, Timing, compose


@dataclass(frozen=True)
class Shape:
    """Input and output sizes of a network. branch_channels: channels of each input branch.
    persons: M of a clip tensor; with 1, logits are per person. num_class: size of the logits."""

    branch_channels: tuple[int, ...]
    persons: int
    num_class: int


class ClipNetwork(nn.Layer):
    """The contract of every network: clip tensor (N, M*V, I*C, T) in, logits (N, num_class) out,
    and no tensor of rank above 4 in between.

    A subclass implements `trunk` and `head`, and declares `timings` and classifier_name, the name
    of the layer in `head` that has the weights of each class.
    """

    classifier_name: ClassVar[str]

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.branch_channels = list(shape.branch_channels)
        self.persons, self.num_class = shape.persons, shape.num_class

    @property
    def timings(self) -> tuple[Timing, ...]:
        """The convolutions over time from input to output, in execution order."""
        raise NotImplementedError

    @property
    def geometry(self) -> Geometry:
        """Receptive field, delay, total stride and tail margin, in input frames."""
        return compose(self.timings)

    @property
    def truncates(self) -> bool:
        """Truncated clips give the logits of the whole ones (model/tail.py): in evaluation, every
        activation is constant in a constant tail, except near both ends."""
        return True

    def trunk(self, clips: Tensor, tail: Tail | None) -> Tensor:
        """(N, M*V, I*C, T) -> feature (P, C', T', V). tail: of truncated clips, else None."""
        raise NotImplementedError

    def head(self, feature: Tensor) -> Tensor:
        """Linear map to the classes, (P, C', T', V) -> (P, num_class, T', V)."""
        raise NotImplementedError

    def forward(self, clips: Tensor, cut: Tensor | None = None) -> Tensor:
        """Clip tensor -> logits (N, num_class). cut: (N, 1, 1, 1), the fraction of each clip's
        frames that was removed (model/tail.py); None for whole clips. Raises ValueError for a cut
        where truncation is not exact for this network (`truncates`)."""
        tail = None
        if cut is not None:
            if not self.truncates:
                raise ValueError("cut: this network only takes whole clips (ClipNetwork.truncates)")
            # (N, M, 1, 1); expand would query dynamic shapes in exported graphs.
            by_person = paddle.concat([cut] * self.persons, axis=1)
            tail = Tail(by_person.reshape([-1, 1, 1, 1]))
        return self._pooled_logits(self.trunk(clips, tail), tail)

    def extract_feature(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clip tensor -> score map (P, num_class, T', V), feature (P, C', T', V). The mean of the
        score map over T', V and M is the logits."""
        feature = self.trunk(clips, None)
        return self.head(feature), feature

    def with_feature(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Clip tensor -> logits (N, num_class), feature (P, C', T', V), in one pass."""
        feature = self.trunk(clips, None)
        return self._pooled_logits(feature, None), feature

    def _pooled_logits(self, feature: Tensor, tail: Tail | None) -> Tensor:
        if tail is not None:
            feature = tail.through(self.timings).mean(feature)
        pooled = mean_over_persons(feature, self.persons)  # (N, C', 1, 1)
        return self.head(pooled).reshape([-1, self.num_class])


def split_persons(clips: Tensor, num_joint: int) -> Tensor:
    """(N, M*V, I*C, T), M slow -> (P, I*C, T, V) with P = N*M."""
    by_person = clips.reshape([-1, num_joint, clips.shape[2], 0])  # (P, V, I*C, T)
    return by_person.transpose([0, 2, 3, 1])  # (P, I*C, T, V)


def mean_over_persons(feature: Tensor, persons: int) -> Tensor:
    """Mean over T, V and the M persons of each clip, (P, C, T, V) -> (N, C, 1, 1)."""
    c = feature.shape[1]
    pooled = F.adaptive_avg_pool2d(feature, 1)  # (P, C, 1, 1)
    if persons == 1:
        return pooled
    by_clip = pooled.reshape([-1, persons, c, 1])  # (N, M, C, 1)
    return by_clip.mean(axis=1).reshape([-1, c, 1, 1])  # (N, C, 1, 1)


class Classifier(nn.Layer):
    """Dropout and a linear map to the classes, (P, C, T, V) -> (P, num_class, T, V)."""

    def __init__(self, channel: int, num_class: int, drop_prob: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(drop_prob)
        self.fc = Conv2D(channel, num_class, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(x))
