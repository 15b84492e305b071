"""User errors, and how a command line reports them. Imports nothing of this project."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice")
LONGEST, LONGEST_WORD = 280, 120  # characters of a message without its paths, and of a word


class UserError(Exception):
    """An error that the user can fix. The text is one line: what is wrong, the value found, what
    is allowed, the command to run next. Command lines print it and exit with 2; any other
    exception is a bug and keeps its traceback."""


def printable(text: str) -> str:
    """A text of a user's file for one line of output. Line ends, control characters, surrogates and
    characters that turn the direction of writing become escapes: no name can forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """A message as one printable line. Long words that are no paths are shortened, then the middle
    of what is longer than LONGEST; paths do not count."""
    words = [_shortened(printable(word)) for word in text.split()]
    excess = len(" ".join(words)) - sum(len(w) for w in words if os.sep in w) - LONGEST
    if excess <= 0:
        return " ".join(words)
    middle = 2 * len(words) // 3
    before, after = words[:middle], words[middle:]
    while excess + len(" ...") > 0 and before:
        excess -= len(before.pop()) + 1
    return " ".join([*before, "...", *after])


def _shortened(word: str) -> str:
    if len(word) <= LONGEST_WORD or os.path.lexists(word.strip("'\",;:")):
        return word
    return f"{word[: LONGEST_WORD // 2]}...{word[-LONGEST_WORD // 4 :]}"


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
        print(f"error: {one_line(str(error))}", file=sys.stderr)
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
