"""User errors, and how a command line ends with one. Imports nothing of ours."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

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
    except BrokenPipeError:  # the reader of our output, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
