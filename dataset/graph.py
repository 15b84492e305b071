"""Skeleton -> normalised, partitioned adjacency (K, V, V). NumPy only.

Convention: A[k, v, w] is the weight from source joint v to target joint w, and joints are
aggregated as `x @ A[k]`. Partitions follow ST-GCN (AAAI 2018, section 3.4); EfficientGCN uses
'distance' with max_hop 10 and keeps only the first slices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataset.skeletons import Skeleton
from errors import choose


def hop_distance(edges: np.ndarray, num_joint: int, max_hop: int) -> np.ndarray:
    """Number of edges on the shortest path between joints, (V, V) float64; inf beyond max_hop.

    edges: (E, 2) integers, undirected.
    """
    adjacent: list[set[int]] = [set() for _ in range(num_joint)]
    for a, b in edges.tolist():
        adjacent[a].add(b)
        adjacent[b].add(a)
    hop = np.full((num_joint, num_joint), np.inf)
    for joint in range(num_joint):
        reached, seen, distance = {joint}, {joint}, 0
        while reached and distance <= max_hop:
            hop[joint, list(reached)] = distance
            reached = set().union(*(adjacent[v] for v in reached)) - seen
            seen |= reached
            distance += 1
    return hop


def adjacency(
    skeleton: Skeleton,
    strategy: str,
    *,
    max_hop: int = 1,
    dilation: int = 1,
    true_hops: bool = False,
) -> np.ndarray:
    """Partitioned adjacency of a layout, (K, V, V) float32.

    Joints 0, dilation, 2 dilation, ... up to max_hop edges apart are neighbours; each target's
    column is divided by its number of neighbours, so that columns summed over K are 1.
    strategy: 'uniform' K=1; 'distance' one slice per hop; 'spatial' root, closer and farther by
    distance to the centre joint, K=3 for max_hop=1.
    true_hops: measure that distance on the whole graph. By default it is infinite beyond max_hop,
    as in the published code, whose weights need it: edges far from the centre then count as root.
    """
    num_joint = skeleton.num_joint
    edges = np.array(skeleton.edges)
    hop = hop_distance(edges, num_joint, max_hop)
    hops = range(0, max_hop + 1, dilation)
    neighbour = np.isin(hop, list(hops)).astype(np.float64)
    norm = neighbour / neighbour.sum(axis=0, keepdims=True)  # each column sums to 1

    to_centre = hop_distance(edges, num_joint, num_joint) if true_hops else hop
    split = choose(STRATEGIES, strategy, where="strategy")
    return np.stack(split(norm, hop, to_centre[:, skeleton.centre], hops)).astype(np.float32)


def _spatial_slices(
    norm: np.ndarray, hop: np.ndarray, to_centre: np.ndarray, hops: range
) -> list[np.ndarray]:
    source, target = to_centre[:, None], to_centre[None, :]
    slices = []
    for h in hops:
        here = np.where(hop == h, norm, 0)
        masks = (source == target, source > target, source < target)
        root, close, further = (np.where(mask, here, 0) for mask in masks)
        slices += [root] if h == 0 else [root + close, further]
    return slices


_Split = Callable[[np.ndarray, np.ndarray, np.ndarray, range], "list[np.ndarray]"]
STRATEGIES: dict[str, _Split] = {
    "uniform": lambda norm, hop, to_centre, hops: [norm],
    "distance": lambda norm, hop, to_centre, hops: [np.where(hop == h, norm, 0) for h in hops],
    "spatial": _spatial_slices,
}


def efficientgcn_adjacency(skeleton: Skeleton, max_distance: int) -> np.ndarray:
    """The (max_distance + 1, V, V) slices that EfficientGCN uses: normalised by the number of
    joints within 10 hops, so they do not sum to 1 (released weights contain exactly these)."""
    return adjacency(skeleton, "distance", max_hop=10)[: max_distance + 1]
