"""Files that are whole or absent, and readers that run no code from a file. Imports nothing of ours
but `errors`, and nothing heavy."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import pickle
import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Union

import numpy as np
import yaml

from errors import UserError

PathLike = Union[str, "os.PathLike[str]"]
MOST_YAML = 100_000  # values of a YAML file, each counted as often as it is referred to


@contextlib.contextmanager
def whole_file(path: PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when the block has ended well.

    Written beside as `.<name>.<own>.part`, flushed to the disk, then renamed; after an error, or
    a kill, `path` is what it was before. Two writers do not meet: the last to end wins whole.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        # A failed write names no file; an error with another file's name is the block's own.
        own = (None, str(part), *map(str, path.parents))
        if isinstance(error, OSError) and error.filename in own:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def read_yaml(text: str, where: str) -> Any:
    """YAML without tags that build objects. Raises UserError for anything else, and for values
    that hold themselves or each other so often that nobody could walk through them."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: not readable as YAML: {reason}") from error
    except (AttributeError, LookupError, TypeError) as error:  # e.g. '!!timestamp x'
        raise UserError(f"{where}: not readable as YAML: a value does not fit its tag") from error
    rest, count = [value], 0
    while rest:
        inner = rest.pop()
        count += 1
        if count > MOST_YAML:
            raise UserError(f"{where}: more than {MOST_YAML} values; allowed: fewer, no loops")
        if isinstance(inner, dict):
            rest += [*inner, *inner.values()]
        elif isinstance(inner, (list, tuple, set)):
            rest += inner
    return value


def read_yaml_file(path: PathLike) -> Any:
    """`read_yaml` of a file. Raises UserError too where it is missing or no text in UTF-8."""
    return read_yaml(read_text(path), str(path))


def read_text(path: PathLike) -> str:
    """A text file in UTF-8, or UserError."""
    refuse_pipe(path)
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8") from error


def refuse_pipe(path: PathLike) -> None:
    """Raises UserError for what may have no end: a pipe, a device."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(f"{path}: a pipe or a device; allowed: a file")


def file_hash(path: PathLike) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def dump_pickle(value: Any, file: IO[bytes]) -> None:
    """Write plain data so that Python 3.4 and later, and the public ports, read it."""
    pickle.dump(value, file, protocol=4)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, which pickle protocol 2 uses to write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} in a pickle is not admitted")
    return codecs.latin_1_encode(text)[0]


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Stands in for `bytearray`, which takes a number for a length and sets that much aside."""
    if isinstance(content, str):
        content = _encode_latin1(content, encoding)
    return bytearray(memoryview(content))  # which no number has


class StandIn:
    """Takes the place of an object while a pickle is read, so that none of its own code runs.
    `plain` gives what the reader's caller gets; only stand-ins may be given a state."""

    def plain(self) -> Any:
        """The value that the object stands for."""
        raise pickle.UnpicklingError(f"{type(self).__name__} is not admitted as data")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of an object is not admitted")


class _Dtype(StandIn):
    """For numpy.dtype; plain numbers and text only."""

    def __init__(self, code: str, *_: object) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "?biufcSU":
            raise pickle.UnpicklingError(f"arrays of {self.dtype} are not admitted")

    def __setstate__(self, state: tuple) -> None:
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("arrays of records are not admitted")
        self.dtype = self.dtype.newbyteorder(state[1])

    def plain(self) -> np.dtype:
        return self.dtype


class _Array(StandIn):
    """For an ndarray. NumPy's own `__setstate__` trusts what it is given; this one goes through
    the checks of frombuffer and reshape."""

    def __init__(self, *_: object) -> None:
        self.array = np.empty(0)

    def plain(self) -> np.ndarray:
        return self.array

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _from_bytes(content, dtype, shape, "F" if fortran else "C")


def _from_bytes(content: bytes, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    if isinstance(content, str):  # protocol 0 to 2 of Python 2
        content = _encode_latin1(content)
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order).copy()


def _scalar(dtype: _Dtype, content: bytes) -> np.generic:
    return _from_bytes(content, dtype, (), "C")[()]


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _encode_latin1,
    ("builtins", "bytearray"): _bytearray,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_bytes,
    **{("builtins", kind.__name__): kind for kind in (tuple, list, dict, set, frozenset, complex)},
}


class PlainUnpickler(pickle._Unpickler):  # the one in Python, whose steps can be overruled
    """Admits containers, numbers, strings and NumPy arrays. Every other name in the file is
    refused before anything is built, and only stand-ins may be given a state, so a hostile pickle
    has nothing to call and nothing to change. Pass what `load` gives to `without_stand_ins`.

    A subclass may admit more: (module, name) -> a stand-in, or a function that checks what it is
    given. drops_state_of: types whose state is read and forgotten.
    """

    admitted: Mapping[tuple[str, str], Any] = _ADMITTED
    drops_state_of: tuple[type, ...] = ()
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        home = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (home, name) not in self.admitted:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return self.admitted[home, name]

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, StandIn):
            target.__setstate__(state)
        elif not isinstance(target, self.drops_state_of):
            raise pickle.UnpicklingError("the state of an object is not admitted")

    dispatch[pickle.BUILD[0]] = load_build


def without_stand_ins(value: Any) -> Any:
    """The value with every stand-in in it replaced by what it stands for."""
    return _plain(value, {})


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """done: id -> result, for shared parts."""
    if isinstance(value, StandIn):
        return value.plain()
    if callable(value):
        raise pickle.UnpicklingError("a function is not admitted as data")
    if id(value) not in done and isinstance(value, dict):
        pairs = [(_plain(k, done), _plain(v, done)) for k, v in value.items()]
        done[id(value)] = dict(pairs)
    elif id(value) not in done and isinstance(value, (list, tuple)):
        done[id(value)] = type(value)([_plain(inner, done) for inner in value])
    return done.get(id(value), value)


@contextlib.contextmanager
def pickle_mistakes(path: PathLike, kind: str) -> Iterator[None]:
    """Everything that a missing, damaged or hostile pickle makes a restricted unpickler raise
    becomes a UserError. kind: what the file should be, e.g. 'a pickle of plain data'."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not {kind}: {error}") from error
    except (LookupError, ImportError, OverflowError, MemoryError, RecursionError) as error:
        raise UserError(f"{path}: damaged pickle: {type(error).__name__}") from error
    except (struct.error, AssertionError) as error:  # of Python's own reader
        raise UserError(f"{path}: damaged pickle: {type(error).__name__}") from error


def load_pickle(path: PathLike) -> Any:
    """Read a pickle that holds only containers, numbers, strings and NumPy arrays.

    Raises UserError when the file is missing, damaged, or names anything else (code).
    """
    refuse_pipe(path)
    with pickle_mistakes(path, "a pickle of plain data"), open(path, "rb") as file:
        return without_stand_ins(PlainUnpickler(file, encoding="latin1").load())
