"""Pickles of plain data, read without running code from them. Imports only `errors` and `safe_io`
from this project."""

from __future__ import annotations

import codecs
import contextlib
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, ClassVar

import numpy as np

from errors import UserError
from safe_io import PathLike, refuse_pipe


def dump_pickle(value: Any, file: IO[bytes]) -> None:
    """Write plain data in a format that Python 3.4 and later, and the public ports, can read."""
    pickle.dump(value, file, protocol=4)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Replaces `_codecs.encode`, which pickle protocol 2 uses to write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} in a pickle is not admitted")
    return codecs.latin_1_encode(text)[0]


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Replaces `bytearray`, which would allocate as many bytes as a number in the file asks for."""
    if isinstance(content, str):
        content = _encode_latin1(content, encoding)
    return bytearray(memoryview(content))  # memoryview rejects numbers


class StandIn:
    """Replaces an object while a pickle is read, so that none of the object's code runs. Only
    stand-ins accept a state; `without_stand_ins` replaces each by its `plain` value."""

    def plain(self) -> Any:
        """The plain value that this stand-in represents."""
        raise pickle.UnpicklingError(f"{type(self).__name__} is not admitted as data")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of an object is not admitted")


class _Dtype(StandIn):
    """Stand-in for numpy.dtype; plain numbers and text only."""

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
    """Stand-in for an ndarray. NumPy's own `__setstate__` does not validate its input; this one
    relies on the checks in frombuffer and reshape."""

    def __init__(self, *_: object) -> None:
        self.array = np.empty(0)

    def plain(self) -> np.ndarray:
        return self.array

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _from_bytes(content, dtype, shape, "F" if fortran else "C")


def _from_bytes(content: bytes | str, dtype: _Dtype, shape: Any, order: Any) -> np.ndarray:
    if isinstance(content, str):  # protocol 0 to 2 of Python 2
        content = _encode_latin1(content)
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order).copy()


def _scalar(dtype: _Dtype, content: bytes | str) -> Any:
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


class PlainUnpickler(pickle._Unpickler):  # the pure-Python one, whose steps can be overridden
    """Admits containers, numbers, strings and NumPy arrays. Every other name in the file is
    rejected before anything is built, and only stand-ins accept a state, so a malicious pickle has
    nothing to call and nothing to modify. Pass the result of `load` to `without_stand_ins`.

    A subclass may admit more: (module, name) -> a stand-in, or a function that validates its
    arguments. drops_state_of: types whose state is read and discarded.
    """

    admitted: Mapping[tuple[str, str], Any] = _ADMITTED
    drops_state_of: tuple[type, ...] = ()
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

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
    """The value with every stand-in in it replaced by its plain value."""
    return _plain(value, {})


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """done: id -> result, so that shared objects stay shared."""
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
    """Turns every exception that a missing, damaged or malicious pickle causes in a restricted
    unpickler into a UserError. kind: the expected content, e.g. 'a pickle of plain data'."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not {kind}: {error}") from error
    except (LookupError, ImportError, OverflowError, MemoryError, RecursionError) as error:
        raise UserError(f"{path}: damaged pickle: {type(error).__name__}") from error
    except (struct.error, AssertionError) as error:  # of the pure-Python unpickler
        raise UserError(f"{path}: damaged pickle: {type(error).__name__}") from error


def load_pickle(path: PathLike) -> Any:
    """Read a pickle that contains only containers, numbers, strings and NumPy arrays.

    Raises UserError if the file is missing, damaged, or refers to anything else (code).
    """
    refuse_pipe(path)
    with pickle_mistakes(path, "a pickle of plain data"), open(path, "rb") as file:
        return without_stand_ins(PlainUnpickler(file, encoding="latin1").load())
