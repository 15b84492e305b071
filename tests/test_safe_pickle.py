"""Pickles are read without running code from them."""

from __future__ import annotations

import collections
import os
import pickle
import re
import struct
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


# Instructions of hand-written pickles. A text of a million letters, and a nested tuple of 2**60
# values, in a few bytes.
START, STOP = b"\x80\x04", b"."
LONG_TEXT = b"X" + struct.pack("<I", 10**6) + b"x" * 10**6
NESTED = b")" + b"2\x86" * 60
WIDE = b")" + b"22\x87" * 30  # 3**30 values, 30 deep


def call(name: str, *args: bytes) -> bytes:
    module, _, name = name.rpartition(".")
    return b"c%s\n%s\n(%stR" % (module.encode(), name.encode(), b"".join(args))


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def many(instructions: bytes, count: int = 10_000) -> bytes:
    """A list of values, made from the text of a million letters that is stored as 0."""
    return LONG_TEXT + b"q\x000](" + instructions * count + b"e"


MULTIPLIES = {
    "a nested key": b"}" + NESTED + b"Ns",
    "nested keys": b"}(" + NESTED + b"Nu",
    "a key of DICT": b"(" + NESTED + b"Nd",
    "an item of a set": b"\x8f(" + NESTED + b"\x90",
    "an item of a frozenset": b"(" + NESTED + b"\x91",
    "a key of dict()": call("builtins.dict", b"](" + NESTED + b"N\x86e"),
    "an item of set()": call("builtins.set", b"](" + NESTED + b"e"),
    "an item of frozenset()": call("builtins.frozenset", b"](" + NESTED + b"e"),
    "a key of OrderedDict": call("collections.OrderedDict", b"](" + NESTED + b"N\x86e"),
    "a nested encoding": call("_codecs.encode", b"X\1\0\0\0x", NESTED),
    "a nested dtype": call("numpy.dtype", NESTED),
    "a nested byte order": call("numpy.dtype", b"X\2\0\0\0f4") + b"(K\3" + NESTED + b"NNNtb",
    "a long tower": b"]" + b"q\0]h\0a" * 40,
    "nested values": NESTED,
    "wide values": WIDE,
    "references to a text": many(b"h\0"),
    "encode": many(call("_codecs.encode", b"h\0")),
    "bytearray": many(call("builtins.bytearray", b"h\0")),
    "set": many(call("builtins.set", b"h\0")),
    "list": many(call("builtins.list", b"h\0")),
    "tuple": b"(" + b"N" * 10**5 + b"tq\0](" + call("builtins.tuple", b"h\0") * 999 + b"e",
    "NEWOBJ": many(b"cbuiltins\nlist\nh\0\x85\x81"),
    "OBJ": many(b"(cbuiltins\nlist\nh\0o"),
    "INST": many(b"(h\0ibuiltins\nlist\n"),
    "arguments that are a text": many(b"cnumpy\nndarray\nh\0R"),
    "BYTEARRAY8 of 8 GB": b"\x96" + struct.pack("<Q", 2**33),
    "empty sets": b"](" + b"\x8f" * 20_000 + b"e",
    "marks": b"(" * 20_000,
    "stored tuples": b")" + b"\x94\x85" * 20_000,
    "a list of 10**12 lists": call(
        *("numpy.core.numeric._frombuffer", b"C\0", call("numpy.dtype", b"X\2\0\0\0f4")),
        *(number(10**12) + b"K\0\x86", b"X\1\0\0\0C"),
    ),
    "keys of one hash": b"}(" + b"".join(number(n << 40) + b"N" for n in range(20_000)) + b"u",
    "keys, one by one": b"}" + b"".join(number(n << 40) + b"Ns" for n in range(20_000)),
    "a key of many bits": b"}" + number(2**20_000) + b"Ns",
    "references of one hash": b"N" + b"".join(b"p%d\n" % (n * (2**61 - 1)) for n in range(9)),
    "a long reference": b"Nr\xff\xff\xff\xff",
    "items for an array": call(
        *("numpy.core.multiarray.scalar", call("numpy.dtype", b"X\2\0\0\0f4"), b"C\4abcd"),
    )
    + b"NNs",
}


@pytest.mark.parametrize("name", MULTIPLIES)
def test_a_few_bytes_take_neither_time_nor_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_pickle, "FREE_BYTES", 2**20)  # more would take tests longer
    file = tmp_path / "bomb.pkl"
    file.write_bytes(START + MULTIPLIES[name] + STOP)
    with pytest.raises(UserError, match="bomb.pkl: ") as caught:
        load_pickle(file)
    assert len(str(caught.value)) < 500
    refused = "admitted|take more than|nested more|larger than|not a tuple|not text|items|too early"
    assert re.search(refused, str(caught.value))


def test_large_files_of_real_kinds_are_read(tmp_path: Path) -> None:
    """Label files of Kinetics, and annotations as pyskl writes them."""
    names = [f"S001C001P001R001A{n:07d}.skeleton" for n in range(260_000)]
    labels = [np.int64(n % 400) for n in range(len(names))]
    arrays = {"keypoint": np.ones((1, 2, 17, 2), np.float16), "keypoint_score": np.ones((1, 2, 17))}
    size = {"img_shape": (1080, 1920), "original_shape": (1080, 1920), "total_frames": 2}
    annotations = [
        {"frame_dir": name, "label": 3, **size, **{k: a.copy() for k, a in arrays.items()}}
        for name in names[:10_000]
    ]
    splits = {"train": names[:5_000], "val": names[5_000:10_000]}
    contents = ((names, labels), (names, [[n] for n in range(len(names))], [300] * len(names)))
    for content in (*contents, {"split": splits, "annotations": annotations}):
        (tmp_path / "p.pkl").write_bytes(pickle.dumps(content, 4))
        found = load_pickle(tmp_path / "p.pkl")
        assert type(found) is type(content) and len(found) == len(content)
    np.testing.assert_array_equal(found["annotations"][-1]["keypoint"], arrays["keypoint"])


def test_keys_of_plain_data_are_admitted(tmp_path: Path) -> None:
    value = {
        1: {2.5, None, b"x"},
        (1, "a"): frozenset([True]),
        np.int64(3): {n: n for n in range(999)},
    }
    (tmp_path / "k.pkl").write_bytes(pickle.dumps(value))
    assert load_pickle(tmp_path / "k.pkl") == value
