"""Matching persons between frames, as in the public code of ST-GCN (Yan et al., AAAI 2018,
`feeder/tools.py`) for OpenPose."""

from __future__ import annotations

import numpy as np

from errors import UserError


def openpose_match(clip: np.ndarray) -> np.ndarray:
    """Join the persons of single frames into tracks; (x, y, score) clips, (3, T, V, M).

    From each frame to the next, the persons in descending order of score are matched to the nearest
    person that is not matched yet, by the squared distance summed over joints. Tracks are sorted by
    descending score, summed over frames and joints. Deterministic; equal scores keep their order.
    Raises UserError for other channels.
    """
    if clip.shape[0] != 3:
        raise UserError(f"clip has {clip.shape[0]} channels; openpose_match needs x, y and score")
    _, t, _, m = clip.shape
    score = clip[2].sum(axis=1)  # (T, M)
    order = np.argsort(-score[:-1], axis=1, kind="stable")  # (T-1, M)
    step = clip[:2, 1:, :, None, :] - clip[:2, :-1, :, :, None]  # (2, T-1, V, M, M)
    distance = (step * step).sum(axis=(0, 2))  # (T-1, M, M), [frame, from, to]
    frames = np.arange(t - 1)
    following = np.zeros((t - 1, m), dtype=np.intp)
    for person in order.T:  # the highest score of every frame, then the second highest, ...
        nearest = distance[frames, person].argmin(axis=1)
        distance[frames, :, nearest] = np.inf
        following[frames, person] = nearest
    track = np.tile(np.arange(m), (t, 1))  # (T, M), [frame, track] -> person of that frame
    for frame in frames:
        track[frame + 1] = following[frame, track[frame]]
    joined = np.take_along_axis(clip, track[None, :, None, :], axis=3)
    return joined[..., np.argsort(-joined[2].sum(axis=(0, 1)), kind="stable")]
