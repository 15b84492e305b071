"""Rules of the data check about the body: the order of its joints, its vertical axis, joints that
are missing, and the joint that root-relative coordinates are measured from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dataset.skeletons import Edges, layout_names, skeleton
from reader.check.types import Evidence, Problem, warning
from reader.keypoint.types import KEY

OFTEN_MISSING = 0.5  # fraction of the frames with a person
MAX_POSES = 500  # that a rule looks at, one per clip; a median needs no more
# On four data sets of Kinect the edges of wrong orders are 1.15 to 4 times as long as those of the
# right order, in every single clip; 1.3 to 2.5 times in the median of all clips.
BETTER = 1.1
# A joint that is 0 in every frame is the reference if other joints are this near to it, as a
# fraction of the body's size, in 9 of 10 clips; a body that a camera sees is farther from 0.
NEAR = 0.35
_UPPER = ("head", "nose", "neck", "shoulder")
_LOWER = ("hip", "knee", "ankle", "foot")
UPRIGHT = 2.0  # how many times as long the body is along its vertical axis


def missing(evidence: Evidence) -> Iterator[Problem]:
    """Joints that are missing in most frames."""
    fractions = zip(evidence.wanted.spec.skeleton.joints, missing_fractions(evidence))
    rare = [f"{name} in {fraction:.0%}" for name, fraction in fractions if fraction > OFTEN_MISSING]
    if rare:
        yield warning(
            f"joints missing in most frames: {', '.join(rare)}",
            "check that the joints are in the layout's order, or choose a layout without these",
        )


def missing_fractions(evidence: Evidence) -> np.ndarray:
    """(V,) fraction of the frames with a person in which each joint is missing; 0 for the
    reference, which is not missing."""
    fractions = _zero_fractions(evidence)
    root = reference(evidence)
    if root is not None:
        fractions[root] = 0
    return fractions


def reference(evidence: Evidence) -> int | None:
    """The joint that root-relative coordinates are measured from, which is 0 in every frame; None
    if there is none, because a joint that a camera never sees is 0 as well."""
    zero = np.flatnonzero(_zero_fractions(evidence) == 1)
    poses = _poses(evidence)
    if not zero.size or not len(poses):
        return None
    radius = np.linalg.norm(poses, axis=2) / _size(poses)[:, None]  # N, V
    if np.quantile(np.nanmin(radius, axis=1), 0.9) > NEAR:
        return None
    edges = evidence.wanted.spec.skeleton.edges
    median = np.ma.median(np.ma.masked_invalid(radius), axis=0).filled(np.inf)

    def nearest_neighbour(joint: int) -> float:
        return min(median[a + b - joint] for a, b in edges if joint in (a, b))

    return int(min(zero, key=nearest_neighbour))


def _zero_fractions(evidence: Evidence) -> np.ndarray:
    """(V,) fraction of the frames with a person in which each joint is 0."""
    seen = evidence.seen()
    if not seen:
        return np.zeros(evidence.wanted.spec.skeleton.num_joint)
    zero = np.sum([facts.missing for _, facts in seen], axis=0)
    return zero / sum(facts.body_frames for _, facts in seen)


def order(evidence: Evidence) -> Iterator[Problem]:
    """Joints in the order of another layout, whose edges are then shorter than the configured
    ones. Left and right that are interchanged cannot be found: their edges are equally long."""
    poses = _poses(evidence)
    root = reference(evidence)
    if root is not None:
        poses[:, root] = 0
    is_present = ~np.isnan(poses[..., 0])  # N, V
    if not (is_present.T @ is_present).all():
        return  # two joints never occur together
    distances = _distances(poses)
    own = evidence.wanted.spec.skeleton
    others = [
        layout
        for layout in map(skeleton, layout_names())
        if layout.num_joint == own.num_joint and layout.joints != own.joints
    ]
    length = {layout.name: _tree_length(distances, layout.edges) for layout in (own, *others)}
    best = min(length, key=lambda name: length[name])
    if length[own.name] <= BETTER * length[best]:
        return
    every_pair = tuple(zip(*np.triu_indices(own.num_joint, 1)))
    shortest = _tree_length(distances, every_pair)
    yield warning(
        f"the joints seem to be in the order of {best}: with it, the edges are "
        f"{length[best] / shortest:.2f} times as long as the shortest tree between the joints, "
        f"with {own.name} {length[own.name] / shortest:.2f} times",
        f"set {KEY}skeleton={best}, if the joints are in its order",
    )


def _poses(evidence: Evidence) -> np.ndarray:
    """(N, V, C) poses from up to MAX_POSES clips, of several points; NaN for missing joints."""
    seen = evidence.seen()
    step = max(1, -(-len(seen) // MAX_POSES))
    shape = (evidence.wanted.spec.skeleton.num_joint, 3 if evidence.wanted.is_3d else 2)
    poses = [facts.pose for _, facts in seen[::step] if facts.pose.shape == shape]
    stacked = np.array(poses, np.float64).reshape(-1, *shape)
    return stacked[_size(stacked) > 0]


def _size(poses: np.ndarray) -> np.ndarray:
    """(N,) longest side of the bounding boxes of poses (N, V, C)."""
    return (np.nanmax(poses, axis=1) - np.nanmin(poses, axis=1)).max(axis=1)


def _distances(poses: np.ndarray) -> np.ndarray:
    """(V, V) distances between joints as fractions of the body's size, median over poses
    (N, V, C)."""
    size = _size(poses)[:, None]
    rows = [
        np.nanmedian(np.linalg.norm(poses - poses[:, v : v + 1], axis=2) / size, axis=0)
        for v in range(poses.shape[1])
    ]
    return np.stack(rows)


def _tree_length(distances: np.ndarray, edges: Edges) -> float:
    """Length of the minimum spanning tree along these edges (Prim). distances: (V, V). The tree
    makes layouts with and without loops comparable."""
    lengths = np.full_like(distances, np.inf)
    for a, b in edges:
        lengths[a, b] = lengths[b, a] = distances[a, b]
    total, near, is_outside = 0.0, lengths[0], np.arange(len(lengths)) > 0
    while is_outside.any():
        joint = np.where(is_outside, near, np.inf).argmin()
        total += near[joint]
        is_outside[joint] = False
        near = np.minimum(near, lengths[joint])
    return float(total)


def vertical(evidence: Evidence) -> Iterator[Problem]:
    """Bodies whose vertical axis is not y, about which `random_rotate` rotates. Up or down along it
    makes no difference."""
    poses = _poses(evidence)
    if not evidence.wanted.is_3d or not len(poses):
        return
    along = _height(poses, evidence.wanted.spec.skeleton.joints)
    axis = int(along.argmax())
    if along[axis] <= UPRIGHT * along[1]:
        return
    name = "xyz"[axis]
    fix = {"z": f"set {KEY}up=z", "x": "rotate the coordinates until y is vertical"}[name]
    if evidence.wanted.up == "z":
        name, fix = {"z": ("y", f"set {KEY}up=y"), "x": ("x", fix)}[name]
    yield warning(
        f"the vertical axis of the bodies is {name}, but up is {evidence.wanted.up}: "
        "random_rotate would rotate them about another axis",
        fix,
    )


def _height(poses: np.ndarray, joints: tuple[str, ...]) -> np.ndarray:
    """(3,) size of poses (N, V, 3) along x, y and z, median over poses: from the legs to the head
    where the names of the joints tell them, else that of the bounding box."""
    parts = [
        [v for v, name in enumerate(joints) if any(word in name.lower() for word in words)]
        for words in (_UPPER, _LOWER)
    ]
    if not all(parts):
        return np.median(np.nanmax(poses, axis=1) - np.nanmin(poses, axis=1), axis=0)
    upper, lower = (np.ma.masked_invalid(poses[:, part]).mean(axis=1) for part in parts)
    return np.ma.median(abs(upper - lower), axis=0).filled(0)
