"""Pickles of plain data, read without running code from them, in memory and time proportional to
the size of the file. Imports only `errors` and `safe_io` from this project.

A pickle is a program, and may refer to its values again: a few bytes can copy a long string, nest a
tuple in itself so that its hash takes years, or fill a dict with keys of one hash. Therefore what
such instructions build is counted against the size of the file, keys are simple, and the result may
not be larger, or nested deeper, than plain data are.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import os
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pickle import UnpicklingError
from typing import IO, Any, ClassVar

import numpy as np

from errors import UserError
from safe_io import PathLike, open_file

# What the values of a file may need, in bytes: FREE_BYTES + BYTES_PER_BYTE * its size. The lists of
# labels of 260,000 clips, annotations of pyskl and checkpoints need less than a tenth of it.
FREE_BYTES, BYTES_PER_BYTE = 256 * 2**20, 16
MAX_DEPTH = 32  # of values in values; checkpoints have 6
# Keys of one dict or set that are not text. Python randomises the hashes of text only: a file may
# choose numbers of one hash, with which the time grows with the square of their count.
MAX_NUMBER_KEYS = 10_000
_KEYS = (str, bytes, int, float, type(None), np.generic)
_MAX_KEY_PARTS, _MAX_KEY_BITS = 8, 64  # of a tuple; of an integer, which is hashed again each time
_MAX_EMPTY = 10**6  # lists that `tolist` of an array without values would make
# Bytes in memory that one byte of these instructions takes. The others take less than 20.
_COSTS = {
    **{pickle.MARK: 136, pickle.EMPTY_SET: 232, pickle.EMPTY_DICT: 80, pickle.EMPTY_LIST: 72},
    **{pickle.MEMOIZE: 80, pickle.TUPLE1: 56, pickle.TUPLE2: 64, pickle.TUPLE3: 72},
}
_CALL, _ITEM = 100, 64  # the same of a call, and of each item of its arguments
_NOT_FOR_DATA = (
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2),
    *(pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
_MAX_REASON = 300  # letters of an error message, which may quote the file


def dump_pickle(value: Any, file: IO[bytes]) -> None:
    """Write plain data in a format that Python 3.4 and later, and the public ports, can read."""
    pickle.dump(value, file, protocol=4)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Replaces `_codecs.encode`, which pickle protocol 2 uses to write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise UnpicklingError("an encoding other than latin1 is not admitted")
    return codecs.latin_1_encode(text)[0]


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Replaces `bytearray`, which would allocate as many bytes as a number in the file asks for."""
    if isinstance(content, str):
        content = _encode_latin1(content, encoding)
    return bytearray(memoryview(content))  # memoryview rejects numbers


def _check_keys(keys: Iterable[Any], count: int) -> None:
    """Raises UnpicklingError for keys that are not text, numbers, or flat tuples of these. count:
    of all keys that the dict or set will have."""
    for key in keys:
        if type(key) is str:
            continue
        parts = key if type(key) is tuple else (key,)
        is_long = any(isinstance(p, int) and p.bit_length() > _MAX_KEY_BITS for p in parts)
        if is_long or len(parts) > _MAX_KEY_PARTS or not all(isinstance(p, _KEYS) for p in parts):
            raise UnpicklingError(
                f"a key of type {type(key).__name__} is not admitted; allowed: text, numbers of up "
                f"to {_MAX_KEY_BITS} bits, and tuples of up to {_MAX_KEY_PARTS} of these"
            )
        if count > MAX_NUMBER_KEYS:
            raise UnpicklingError(
                f"{count} keys, some of them not text; allowed: {MAX_NUMBER_KEYS} of such"
            )


def plain_dict(pairs: Any = ()) -> dict:
    """Replaces `dict` and its subclasses."""
    keys = list(pairs) if isinstance(pairs, dict) else [key for key, _ in _items(pairs)]
    _check_keys(keys, len(keys))
    return dict(pairs)


def _items(items: Any = ()) -> list | tuple:
    """The argument of `list` and the like: of a text, they would make a larger list of letters."""
    if type(items) not in (list, tuple):
        raise UnpicklingError(f"the items of a {type(items).__name__} are not admitted")
    return items


def _set(items: Any = ()) -> set:
    _check_keys(_items(items), len(items))
    return set(items)


class StandIn:
    """Replaces an object while a pickle is read, so that none of the object's code runs. Only
    stand-ins accept a state; `PlainUnpickler.plain` replaces each by its `plain` value."""

    def plain(self) -> Any:
        """The plain value that this stand-in represents."""
        raise UnpicklingError(f"{type(self).__name__} is not admitted as data")

    def __setstate__(self, state: Any) -> None:
        raise UnpicklingError("the state of an object is not admitted")


class _Dtype(StandIn):
    """Stand-in for numpy.dtype; plain numbers and text only."""

    def __init__(self, code: str, *_: object) -> None:
        if type(code) is not str or len(code) > 20:  # others may be built from nested values
            raise UnpicklingError("a dtype that is not a short text is not admitted")
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "?biufcSU":
            raise UnpicklingError(f"arrays of {self.dtype} are not admitted")

    def __setstate__(self, state: tuple) -> None:
        if any(part is not None for part in state[2:5]):
            raise UnpicklingError("arrays of records are not admitted")
        if state[1] not in ("<", ">", "=", "|"):
            raise UnpicklingError("a byte order other than < > = | is not admitted")
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
    array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order).copy()
    if not array.size and math.prod(max(n, 1) for n in array.shape) > _MAX_EMPTY:
        raise UnpicklingError(f"an array without values, of shape {array.shape}, is not admitted")
    return array


def _scalar(dtype: _Dtype, content: bytes | str) -> Any:
    return _from_bytes(content, dtype, (), "C")[()]


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): plain_dict,
    ("_codecs", "encode"): _encode_latin1,
    ("builtins", "bytearray"): _bytearray,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_bytes,
    ("builtins", "dict"): plain_dict,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): lambda items=(): frozenset(_set(items)),
    ("builtins", "list"): lambda items=(): list(_items(items)),
    ("builtins", "tuple"): lambda items=(): tuple(_items(items)),
    ("builtins", "complex"): complex,
}


def _num_byte(value: Any) -> int:
    """Of a value that is no container."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return getattr(value, "nbytes", 8)  # of arrays and NumPy's numbers


def _cost(argument: Any) -> int:
    """Bytes of a copy of an argument, without what its items refer to."""
    is_container = isinstance(argument, (list, tuple, dict, set, frozenset))
    return _ITEM * len(argument) if is_container else _num_byte(argument)


def _counted(load: Callable[[Any], None], cost: int) -> Callable[[Any], None]:
    def counted(self: PlainUnpickler) -> None:
        self.spend(cost)
        load(self)

    return counted


def _refused(_: PlainUnpickler) -> None:
    raise UnpicklingError("an instruction that plain data do not need is not admitted")


_DISPATCH: dict[int, Callable[[Any], None]] = {
    **pickle._Unpickler.dispatch,
    **{c[0]: _counted(pickle._Unpickler.dispatch[c[0]], cost) for c, cost in _COSTS.items()},
    **{code[0]: _refused for code in _NOT_FOR_DATA},
}


class PlainUnpickler(pickle._Unpickler):  # the pure-Python one, whose steps can be overridden
    """Admits containers, numbers, strings and NumPy arrays. Every other name in the file is
    rejected before anything is built, and only stand-ins accept a state, so a malicious pickle has
    nothing to call and nothing to modify. Pass the result of `load` to `plain`.

    size: of the file, in bytes. A subclass may admit more: (module, name) -> a stand-in, or a
    function that validates its arguments. drops_state_of: types whose state is read and discarded.
    """

    admitted: Mapping[tuple[str, str], Any] = _ADMITTED
    drops_state_of: tuple[type, ...] = ()
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_DISPATCH)
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    memo: dict[int, Any]

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, encoding="latin1")
        # A length in the file may be wrong: never reserve more than there is to read.
        self._file_read = lambda count: file.read(min(count, size))
        self.size, self.limit = size, FREE_BYTES + BYTES_PER_BYTE * size
        self._spent = 0
        self._done: dict[int, tuple[Any, int, int]] = {}  # of `_plain`, by id

    def spend(self, num_byte: int) -> None:
        """Count memory that an instruction takes. Raises UnpicklingError beyond the limit."""
        self._spent += num_byte
        self._check(self._spent)

    def _check(self, num_byte: int) -> None:
        if num_byte > self.limit:
            raise UnpicklingError(
                f"its values would take more than {self.limit} bytes, but the file has {self.size}"
            )

    def find_class(self, module: str, name: str) -> Any:
        home = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (home, name) not in self.admitted:
            raise UnpicklingError(f"{module}.{name} is not admitted")
        return self.admitted[home, name]

    def load_reduce(self) -> None:
        args = self.stack.pop()
        if type(args) is not tuple:
            raise UnpicklingError("a call with arguments that are not a tuple")
        self.spend(_CALL + sum(map(_cost, args)))
        self.stack[-1] = self.stack[-1](*args)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, StandIn):
            self.spend(sum(map(_cost, state)) if type(state) is tuple else 0)
            target.__setstate__(state)
        elif not isinstance(target, self.drops_state_of):
            raise UnpicklingError("the state of an object is not admitted")

    def load_bytearray8(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        self.stack.append(bytearray(self.read(count)))

    def load_put(self) -> None:
        self._put(int(self.readline()[:-1]))

    def load_long_binput(self) -> None:
        self._put(struct.unpack("<I", self.read(4))[0])

    def _put(self, index: int) -> None:
        if not 0 <= index <= self.size:  # picklers count from 0; others may choose equal hashes
            raise UnpicklingError("a reference number larger than the file")
        self.memo[index] = self.stack[-1]

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._container(list).extend(items)

    def load_append(self) -> None:
        item = self.stack.pop()
        self._container(list).append(item)

    def load_additems(self) -> None:
        items = self.pop_mark()
        target = self._container(set)
        _check_keys(items, len(target) + len(items))
        target.update(items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()  # first: it changes the stack
        self.stack.append(frozenset(_set(items)))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set_items(items)

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _set_items(self, items: list[Any]) -> None:
        """items: a key, its value, the next key, ..."""
        target, keys = self._container(dict), items[::2]
        _check_keys(keys, len(target) + len(keys))
        target.update(zip(keys, items[1::2], strict=True))

    def _container(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:  # arrays would interpret keys
            raise UnpicklingError(
                f"items for a {type(self.stack[-1]).__name__}, not a {kind.__name__}"
            )
        return self.stack[-1]

    for _code, _load in (
        *((pickle.REDUCE, load_reduce), (pickle.BUILD, load_build), (pickle.PUT, load_put)),
        *((pickle.LONG_BINPUT, load_long_binput), (pickle.BYTEARRAY8, load_bytearray8)),
        *((pickle.APPEND, load_append), (pickle.APPENDS, load_appends), (pickle.DICT, load_dict)),
        *((pickle.SETITEM, load_setitem), (pickle.SETITEMS, load_setitems)),
        *((pickle.ADDITEMS, load_additems), (pickle.FROZENSET, load_frozenset)),
    ):
        dispatch[_code[0]] = _load

    def plain(self, value: Any) -> Any:
        """The value with every stand-in in it replaced by its plain value. Raises UnpicklingError
        where it is nested too deep, or would be too large with each reference as a copy: nobody who
        walks through it then needs to expect that."""
        return self._plain(value, 0)[0]

    def _plain(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """(plain value, bytes with each reference as a copy, levels of containers). Shared objects
        stay shared."""
        if isinstance(value, StandIn):
            value = value.plain()
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            if callable(value):
                raise UnpicklingError("a function is not admitted as data")
            return value, _num_byte(value), 0
        if id(value) in self._done:
            return self._done[id(value)]
        found: list[Any] = []
        num_byte, levels = 8 * len(value), 0
        for inner in value.values() if isinstance(value, dict) else value:
            if type(inner) in (int, float, bool):  # the usual ones, quickly
                found.append(inner)
                continue
            if depth == MAX_DEPTH:
                break
            plain, inner_byte, inner_levels = self._plain(inner, depth + 1)
            found.append(plain)
            num_byte, levels = num_byte + inner_byte, max(levels, inner_levels)
        if levels == MAX_DEPTH or len(found) < len(value):
            raise UnpicklingError(f"values nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            num_byte += sum(map(_num_byte, value))
            plain = dict(zip(value, found))
        else:
            plain = type(value)(found)
        self._check(num_byte)
        self._done[id(value)] = plain, num_byte, levels + 1
        return self._done[id(value)]


@contextlib.contextmanager
def pickle_mistakes(path: PathLike, kind: str) -> Iterator[None]:
    """Turns every exception that a missing, damaged or malicious pickle causes in a restricted
    unpickler into a UserError. kind: the expected content, e.g. 'a pickle of plain data'."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        reason = str(error)[:_MAX_REASON] or "the file ends too early"
        raise UserError(f"{path}: not {kind}: {reason}") from error
    except (LookupError, ImportError, OverflowError, MemoryError, RecursionError) as error:
        raise UserError(f"{path}: damaged pickle: {type(error).__name__}") from error
    except (struct.error, AssertionError) as error:  # of the pure-Python unpickler
        raise UserError(f"{path}: damaged pickle: {type(error).__name__}") from error


def load_pickle(path: PathLike) -> Any:
    """Read a pickle that contains only containers, numbers, strings and NumPy arrays.

    Raises UserError if the file is missing, damaged, or refers to anything else (code).
    """
    with pickle_mistakes(path, "a pickle of plain data"), open_file(path) as file:
        unpickler = PlainUnpickler(file, os.fstat(file.fileno()).st_size)
        return unpickler.plain(unpickler.load())
