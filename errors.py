"""User errors, and how a command line reports them. Imports nothing of this project."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice")


class UserError(Exception):
    """An error that the user can fix. The text is one line: what is wrong, the value found, what
    is allowed, the command to run next. Command lines print it and exit with 2; any other
    exception is a bug and keeps its traceback."""


def nearest_hint(name: str, allowed: Iterable[str]) -> str:
    """'did you mean ...?' for a misspelt name, else the list of allowed names."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"allowed: {', '.join(names)}"


def choose(table: Mapping[str, Choice], name: str, where: str) -> Choice:
    """`table[name]`, or a UserError that names the setting (`where`) and its choices."""
    if name not in table:
        raise UserError(f"{where} is {name!r}; allowed: {', '.join(sorted(table))}")
    return table[name]


def run_command(main: Callable[[], int]) -> int:
    """The exit code of a command line: that of main, or 2 after printing a user error, or that the
    memory is exhausted, as one line. Any other exception is a bug and keeps its traceback."""
    try:
        return main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError as error:  # of NumPy and of Paddle
        reason = " ".join(str(error).partition("\n")[0].split())
        print(
            f"error: out of memory: {reason or 'no reason given'}; use smaller batches, or lower "
            "num_frame, max_frame or num_person",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the process that reads our output, e.g. `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
