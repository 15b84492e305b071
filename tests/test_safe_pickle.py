"""Pickles are read without running code from them."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import safe_pickle
from errors import UserError
from safe_io import whole_file
from safe_pickle import dump_pickle, load_pickle


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_round_trip(tmp_path: Path, protocol: int) -> None:
    value = {
        "a": [1, 2.5, "x", None, True, b"bytes", {3}, (4,), bytearray(b"\xff"), bytearray()],
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "c": np.float64(0.5),
        "d": np.array(["p", "q"]),
        "e": collections.OrderedDict(f=1),
        "g": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    }
    file = tmp_path / "v.pkl"
    file.write_bytes(pickle.dumps(value, protocol))
    got = load_pickle(file)
    np.testing.assert_array_equal(got.pop("b"), value["b"])
    np.testing.assert_array_equal(got.pop("d"), value["d"])
    np.testing.assert_array_equal(got.pop("g"), value["g"])
    assert got == {k: value[k] for k in "ace"}


class Evil:
    def __init__(self, call, *args) -> None:
        self.call = call, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call", [(os.system, "touch {}"), (eval, "open('{}', 'w')"), (getattr, [], "pop")]
)
def test_code_is_refused_before_it_runs(tmp_path: Path, call: tuple) -> None:
    mark = tmp_path / "ran"
    function, *args = call
    args = [a.format(mark) if isinstance(a, str) else a for a in args]
    for content in (Evil(function, *args), np.array([Evil(function, *args)], dtype=object)):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"evil.pkl.*admitted"):
            load_pickle(tmp_path / "evil.pkl")
    assert not mark.exists()


def test_a_number_allocates_no_memory(tmp_path: Path) -> None:
    (tmp_path / "big.pkl").write_bytes(pickle.dumps(Evil(bytearray, 2**45)))
    with pytest.raises(UserError, match=r"big.pkl: not a pickle of plain data: memoryview"):
        load_pickle(tmp_path / "big.pkl")


def test_pickles_cannot_change_functions_of_the_reader(tmp_path: Path) -> None:
    """GLOBAL of an admitted name, then BUILD with attributes for it."""
    state = pickle.dumps((None, {"__defaults__": ("bad",)}), 2)[2:-1]
    for name in (b"c_codecs\nencode\n", b"cnumpy\nndarray\n"):
        for content in (b"\x80\x02" + name + state + b"b.", b"\x80\x02" + name + b"."):
            (tmp_path / "f.pkl").write_bytes(content)
            with pytest.raises(UserError, match="not admitted"):
                load_pickle(tmp_path / "f.pkl")
    assert safe_pickle._encode_latin1.__defaults__ == ("latin1",)


def test_damaged_pickles_are_refused(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": np.arange(100), "b": ["text"] * 10})
    rng = np.random.RandomState(0)
    file = tmp_path / "d.pkl"
    refused = 0
    for case in range(300):
        damaged = bytearray(whole[: rng.randint(len(whole))] if case % 2 else whole)
        for _ in range(3):
            if damaged:
                damaged[rng.randint(len(damaged))] = rng.randint(256)
        file.write_bytes(damaged)
        try:
            load_pickle(file)
        except UserError as error:
            assert str(file) in str(error)
            refused += 1
    assert refused > 100
    with pytest.raises(UserError, match="No such file"):
        load_pickle(tmp_path / "absent.pkl")


def test_any_unpickler_reads_dumped_pickles(tmp_path: Path) -> None:
    with whole_file(tmp_path / "p.pkl") as file:
        dump_pickle((["a"], [1]), file)
    assert pickle.loads((tmp_path / "p.pkl").read_bytes()) == (["a"], [1])
