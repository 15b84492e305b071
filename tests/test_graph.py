"""Adjacencies against published counts, golden arrays and invariants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset.graph import adjacency, efficientgcn_adjacency, hop_distance
from dataset.skeletons import Skeleton, layout_names, skeleton
from errors import UserError

GOLDEN = Path(__file__).parent / "golden"
LAYOUTS = layout_names()


def test_hop_distance_on_a_path() -> None:
    hop = hop_distance(np.array([[0, 1], [1, 2], [2, 3]]), 4, max_hop=2)
    expected = [[0, 1, 2, np.inf], [1, 0, 1, 2], [2, 1, 0, 1], [np.inf, 2, 1, 0]]
    np.testing.assert_array_equal(hop, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strategy", ["uniform", "distance", "spatial"])
@pytest.mark.parametrize("max_hop", [1, 2])
def test_columns_sum_to_one(layout: str, strategy: str, max_hop: int) -> None:
    graph = adjacency(skeleton(layout), strategy, max_hop=max_hop)
    np.testing.assert_allclose(graph.sum(axis=(0, 1)), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("layout", "published", "true_hops"),
    [
        ("openpose-18", [18, 25, 9], [18, 17, 17]),
        ("ntu-25", [25, 40, 8], [25, 24, 24]),
        ("ntu_edge-24", [24, 41, 5], [24, 23, 23]),
    ],
)
def test_spatial_partition_counts(layout: str, published: list, true_hops: list) -> None:
    for expected, flag in ((published, False), (true_hops, True)):
        graph = adjacency(skeleton(layout), "spatial", true_hops=flag)
        assert [int((a > 0).sum()) for a in graph] == expected


@pytest.mark.parametrize(
    ("layout", "file"), [("ntu-25", "stgcn_nturgbd"), ("openpose-18", "stgcn_openpose")]
)
def test_equals_golden_adjacency(layout: str, file: str) -> None:
    golden = np.load(GOLDEN / f"{file}.npz")["A"]
    np.testing.assert_array_equal(adjacency(skeleton(layout), "spatial"), golden)


def test_partition_direction() -> None:
    """In a star the leaves are farther from the centre: into the centre is 'closer'."""
    star = Skeleton("star", ("a", "b", "c"), ((0, 1), (0, 2)), centre=0)
    root, close, further = adjacency(star, "spatial")
    np.testing.assert_allclose(root, np.diag([1 / 3, 1 / 2, 1 / 2]), rtol=1e-6)
    np.testing.assert_allclose(close[:, 0], [0, 1 / 3, 1 / 3], rtol=1e-6)  # leaves -> centre
    np.testing.assert_allclose(further[0], [0, 1 / 2, 1 / 2], rtol=1e-6)  # centre -> leaves


def test_dilation_keeps_every_second_hop() -> None:
    path = Skeleton("path", ("a", "b", "c", "d"), ((0, 1), (1, 2), (2, 3)), centre=0)
    graph = adjacency(path, "distance", max_hop=2, dilation=2)
    np.testing.assert_array_equal(
        graph[1] > 0, [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    )
    assert len(graph) == 2


def test_efficientgcn_is_normalised_by_ten_hops() -> None:
    full = adjacency(skeleton("ntu-25"), "distance", max_hop=10)
    assert [int((a > 0).sum()) for a in full] == [25, 48, 54, 60, 66, 72, 72, 72, 56, 40, 30]
    graph = efficientgcn_adjacency(skeleton("ntu-25"), 2)
    assert graph.shape == (3, 25, 25)
    sums = graph.sum(axis=(0, 1))
    np.testing.assert_allclose([sums.min(), sums.max()], [0.12, 0.36], rtol=1e-6)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(UserError, match="distance, spatial, uniform"):
        adjacency(skeleton("ntu-25"), "random")


def test_hop_distance_is_the_first_power_of_the_adjacency() -> None:
    rng = np.random.default_rng(0)
    for count, max_hop in ((9, 2), (12, 12), (30, 4)):
        edges = np.array([(a, b) for a in range(count) for b in range(a) if rng.random() < 0.12])
        step = np.eye(count, dtype=np.int64)
        step[edges[:, 0], edges[:, 1]] = step[edges[:, 1], edges[:, 0]] = 1
        expected = np.full((count, count), np.inf)
        for hop in range(max_hop, -1, -1):
            expected[np.linalg.matrix_power(step, hop) > 0] = hop
        np.testing.assert_array_equal(hop_distance(edges, count, max_hop), expected)
