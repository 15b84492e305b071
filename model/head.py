"""What the networks' two ends share: a clip tensor taken apart by person, features classified."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from model.conv import Conv2D
from model.tail import Tail


def split_persons(clips: Tensor, num_joint: int) -> Tensor:
    """(N, M*V, I*C, T), M slow -> (P, I*C, T, V) with P = N*M."""
    by_person = clips.reshape([-1, num_joint, clips.shape[2], 0])  # (P, V, I*C, T)
    return by_person.transpose([0, 2, 3, 1])  # (P, I*C, T, V)


def cut_tail(cut: Tensor | None, persons: int) -> Tail | None:
    """(N, 1, 1, 1), the part of each clip's frames that were cut out -> the tail of its persons."""
    if cut is None:
        return None
    by_person = paddle.concat([cut] * persons, axis=1)  # (N, M, 1, 1); `expand` asks for the shape
    return Tail(by_person.reshape([-1, 1, 1, 1]))


def mean_over_persons(feature: Tensor, persons: int, tail: Tail | None = None) -> Tensor:
    """(P, C, T, V) -> (N, C, 1, 1): mean over T, V and the clip's M persons."""
    c = feature.shape[1]
    if tail is not None:
        feature = tail.mean(feature)
    pooled = F.adaptive_avg_pool2d(feature, 1)  # (P, C, 1, 1)
    if persons == 1:
        return pooled
    by_clip = pooled.reshape([-1, persons, c, 1])  # (N, M, C, 1)
    return by_clip.mean(axis=1).reshape([-1, c, 1, 1])  # (N, C, 1, 1)


class Classifier(nn.Layer):
    """Mean over frames, joints and persons, dropout, then one linear map to the classes."""

    def __init__(self, channel: int, num_class: int, drop_prob: float) -> None:
        super().__init__()
        self.num_class = num_class
        self.dropout = nn.Dropout(drop_prob)
        self.fc = Conv2D(channel, num_class, 1)

    def forward(self, feature: Tensor, persons: int, tail: Tail | None = None) -> Tensor:
        """(P, C, T, V) -> (N, num_class)."""
        pooled = self.dropout(mean_over_persons(feature, persons, tail))
        return self.fc(pooled).reshape([-1, self.num_class])

    def score_map(self, feature: Tensor) -> Tensor:
        """(P, C, T, V) -> (P, num_class, T, V), whose mean over T, V and M is the logits."""
        return self.fc(feature)
