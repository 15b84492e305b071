"""What every module may lean on: one kind of user error, files that are whole or absent, and
pickles that cannot run code. Imports nothing of ours and nothing heavy."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, Union

import numpy as np

PathLike = Union[str, "os.PathLike[str]"]
Choice = TypeVar("Choice")


class UserError(Exception):
    """A mistake that the user can mend. The text is one line: the thing, the value seen, what is
    allowed, what to type next. Command lines print it and exit with 2; anything else that is
    raised is a bug and keeps its traceback."""


def nearest_hint(name: str, allowed: Iterable[str]) -> str:
    """'did you mean ...?' for a misspelt name, else the list of what is allowed."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"allowed: {', '.join(names)}"


def choose(table: Mapping[str, Choice], name: str, where: str) -> Choice:
    """`table[name]`, or a UserError that names the setting `where` and the choices."""
    if name not in table:
        raise UserError(f"{where} is {name!r}; allowed: {', '.join(sorted(table))}")
    return table[name]


def run_command(main: Callable[[], int]) -> int:
    """The exit code of a command line: main's own, or 2 after printing a user's mistake as one
    line. Every other exception is a bug and keeps its traceback."""
    try:
        return main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def whole_file(path: PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when the block has ended well.

    Written beside as `.<name>.part`, flushed to the disk, then renamed; after an error, or a
    kill, `path` is what it was before.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def dump_pickle(value: Any, file: IO[bytes]) -> None:
    """Write plain data so that Python 3.4 and later, and the public ports, read it."""
    pickle.dump(value, file, protocol=4)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, which pickle protocol 2 uses to write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} in a pickle is not admitted")
    return codecs.latin_1_encode(text)[0]


class _ContainersOnly(pickle.Unpickler):
    """Admits containers, numbers, strings and NumPy arrays. Every other name in the file is
    refused before anything is built, so a hostile pickle has nothing to call."""

    _NUMPY = ("_reconstruct", "scalar", "_frombuffer")
    _BUILTIN = {
        "builtins": {t.__name__: t for t in (tuple, list, dict, set, frozenset, bytearray, complex)}
    }

    def find_class(self, module: str, name: str) -> Any:
        builtin = self._BUILTIN.get(module.replace("__builtin__", "builtins"), {})
        if name in builtin:
            return builtin[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        home = module.replace("numpy._core", "numpy.core")
        if home in ("numpy.core.multiarray", "numpy.core.numeric") and name in self._NUMPY:
            source = np._core.multiarray if "multiarray" in home else np._core.numeric
            return getattr(source, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not admitted")


def load_pickle(path: PathLike) -> Any:
    """Read a pickle that holds only containers, numbers, strings and NumPy arrays.

    Raises UserError when the file is missing, damaged, or names anything else (code).
    """
    try:
        with open(path, "rb") as file:
            return _ContainersOnly(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a pickle of plain data: {error}") from error
    except (IndexError, KeyError, ImportError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: damaged pickle: {type(error).__name__}") from error
