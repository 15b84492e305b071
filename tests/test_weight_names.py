"""Weights of other projects: names, places and matrices by hand, and whole networks through -pp."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from errors import UserError
from training.weight_names import STATE_KEYS, find_weights, for_network, from_torch

ONE, TWO = np.ones(2, np.float32), np.full(2, 2, np.float32)
SHAPES = {"a.weight": (2,), "bn._mean": (2,), "bn._variance": (2,), "module.own": (2,)}


def test_names_are_changed_only_into_names_of_the_network() -> None:
    weights = {
        "_layers.module.backbone.a.weight": ONE,
        "backbone.bn.running_mean": TWO,
        "bn.running_var": ONE,
        "module.bn.num_batches_tracked": np.array(7),
        "num_batches_tracked": np.array(7),
        "module.own": TWO,
        "module.stray": ONE,
        "module.bn.stray_mean": ONE,
    }
    got, changes = for_network(weights, SHAPES)
    assert list(got) == [*SHAPES, "module.stray", "module.bn.stray_mean"]
    assert got["a.weight"] is ONE and got["bn._mean"] is TWO and got["module.own"] is TWO
    assert changes == {
        "prefix _layers.module.backbone. removed": 1,
        "prefix backbone. removed": 1,
        "BatchNorm statistics renamed": 2,
        "ignored (BatchNorm counters, which Paddle does not have)": 2,
    }
    assert for_network(got, SHAPES) == (got, Counter()), "own names are kept without a word"
    counted = {"bn.num_batches_tracked": ONE}
    assert for_network(counted, {"bn.num_batches_tracked": (2,)}) == (counted, Counter())


def test_a_name_that_two_tensors_claim_is_left_to_the_caller() -> None:
    """The network's own name wins; without it none does."""
    weights = {"a.weight": ONE, "module.a.weight": TWO, "bn.running_mean": ONE}
    weights["module.bn._mean"] = TWO
    assert for_network(weights, SHAPES) == (weights, Counter())


MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)  # (in, out), as Paddle stores it
SQUARE = np.arange(4, dtype=np.float32).reshape(2, 2)


@pytest.mark.parametrize(
    ("array", "shape", "expected"),
    [
        (MATRIX, (2, 3), MATRIX),
        (MATRIX, (3, 2), MATRIX.T),
        (MATRIX, (3, 2, 1, 1), MATRIX.T),
        (MATRIX, (2, 3, 1, 1, 1), MATRIX),
        (SQUARE, (2, 2), SQUARE),
        (SQUARE, (2, 2, 1, 1), SQUARE.T),
        (MATRIX, (3, 2, 5, 1), MATRIX),
        (MATRIX, (4, 2, 1, 1), MATRIX),
    ],
)
def test_linear_weights(array: np.ndarray, shape: tuple[int, ...], expected: np.ndarray) -> None:
    """Those that do not fit are left as they are. From torch, whose form is (out, in), each is the
    same layer."""
    got, changes = for_network({"fc.weight": array}, {"fc.weight": shape})
    fits = expected.size == np.prod(shape)
    assert got["fc.weight"].shape == (shape if fits else array.shape)
    np.testing.assert_array_equal(got["fc.weight"].reshape(expected.shape), expected)
    text = " ".join(changes)
    assert ("a square one as the library of the file stores it" in text) == (
        array is SQUARE and len(shape) > 2
    )
    assert bool(changes) == (fits and array.shape != shape)
    same, _ = for_network(from_torch({"fc.weight": array.T}), {"fc.weight": shape})
    np.testing.assert_array_equal(same["fc.weight"], got["fc.weight"])
    other, _ = for_network({"fc.A": array}, {"fc.A": shape})
    assert other["fc.A"] is array is from_torch({"fc.A": array})["fc.A"]


def test_where_weights_are_found() -> None:
    for place in STATE_KEYS:
        assert find_weights({"epoch": 1, place: {"a": ONE}}, "w.pt") == ({"a": ONE}, place)
    bare = {"a": ONE, "bn.num_batches_tracked": 5, "StructuredToParameterName@@": {"a": "b"}}
    weights, place = find_weights(bare, "w.pt")
    assert place == "" and list(weights) == ["a", "bn.num_batches_tracked"]
    for content, message in (
        (
            {"epoch": 1, "optimizer": {}},
            r"the file contains epoch, optimizer, allowed .* model, state_dict",
        ),
        ([ONE], "contains a list"),
        ({"model": {"a": 1}}, "contains model"),
        ({3: ONE}, "contains 3"),
        ({}, "contains a dict"),
    ):
        with pytest.raises(UserError, match=f"w.pt: no weights found; .*{message}"):
            find_weights(content, "w.pt")


def test_bfloat16_of_paddles_files_becomes_float32() -> None:
    halves = np.array([0x3F80, 0xC040, 0x0000], np.uint16)
    weights, _ = find_weights({"net": {"a": halves}}, "w")
    assert weights["a"].dtype == np.float32 and weights["a"].tolist() == [1, -3, 0]
