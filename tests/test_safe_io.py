"""Whole files, and pickles that cannot run code."""

from __future__ import annotations

import collections
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import safe_io
from errors import LONGEST, UserError, choose, nearest_hint, one_line, printable, run_command
from safe_io import dump_pickle, load_pickle, whole_file
from tests.processes import run_process


def test_whole_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with whole_file(target, "w") as file:
        file.write("one")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(RuntimeError), whole_file(target, "w") as file:
        file.write("two")
        raise RuntimeError
    assert target.read_text() == "one"
    assert os.listdir(target.parent) == ["a.txt"]


def test_the_error_names_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), whole_file(tmp_path / "file" / "b"):
        pass
    with pytest.raises(UserError, match="cannot be written"), whole_file("/proc/none/deep/down/b"):
        pass


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
    assert safe_io._encode_latin1.__defaults__ == ("latin1",)


def test_two_writers_of_one_file_are_independent(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a", "w") as first:
        with whole_file(tmp_path / "a", "w") as second:
            first.write("11111")
            second.write("2")
        assert (tmp_path / "a").read_text() == "2"
    assert (tmp_path / "a").read_text() == "11111" and len(list(tmp_path.iterdir())) == 1


def test_a_closed_pipe_is_no_bug() -> None:
    code = (
        "import errors, sys\ndef main():\n  while True: print('x' * 999)\n"
        "sys.exit(errors.run_command(main))"
    )
    command = f'{sys.executable} -c "{code}" | head -1; exit ${{PIPESTATUS[0]}}'
    done = run_process(["bash", "-c", command])
    assert (done.returncode, done.stderr) == (141, "")


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


def test_names_are_suggested() -> None:
    assert nearest_hint("ntu_xsub", ["ntu-xsub", "other"]) == "did you mean ntu-xsub?"
    assert nearest_hint("zzz", ["b", "a"]) == "allowed: a, b"
    with pytest.raises(UserError, match="mode is 'c'; allowed: a, b"):
        choose({"b": 1, "a": 2}, "c", "mode")


def test_run_command(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise UserError("first\nsecond")

    assert run_command(lambda: 0) == 0
    assert run_command(fails) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_exhausted_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: np.zeros(2**58).size) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory: Unable to allocate 2.00 EiB for an array with")
    assert said.endswith("; use smaller batches, or lower num_frame, max_frame or num_person\n")

    def as_paddle_does() -> int:
        raise MemoryError("(ResourceExhausted) Fail to alloc\n  [Hint: Expected 0]")

    assert run_command(as_paddle_does) == 2
    assert capsys.readouterr().err.startswith("error: out of memory: (ResourceExhausted) Fail to")


def test_errors_of_the_block_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), whole_file(tmp_path / "a.txt", "w"):
        (tmp_path / "other").read_text()
    assert not list(tmp_path.iterdir())


def test_messages_are_one_printable_line_of_bounded_length() -> None:
    forged = one_line("class 'x\nInfer Mean Accuracy: 1\x1b[2J\u202e\ud800\u2028' of 動作")
    assert forged == "class 'x Infer Mean Accuracy: 1\\x1b[2J\\u202e\\ud800\\u2028' of 動作"
    assert printable("a\nb") == "a\\nb" and printable("plain é") == "plain é"
    value = one_line(f"k is '{'v' * 5000}'; allowed: 1 to 9")
    assert len(value) < 200 and value.endswith("; allowed: 1 to 9")
    long = one_line(f"names are {', '.join(map(str, range(500)))}; allowed: two of them")
    assert len(long) <= LONGEST and long.startswith("names are 0, 1")
    assert long.endswith("allowed: two of them") and " ... " in long
    path = f"{os.getcwd()}/{'deep/' * 100}x.npy"
    assert one_line(f"{path}: no such file").count("...") == 1  # it does not exist
