"""User errors, and how a command line reports them. Imports nothing of this project."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no space, no quota, nothing may be written
# Characters of a message without its paths, of a word that is no path, of all paths together.
LONGEST, LONGEST_WORD, LONGEST_PATHS = 270, 120, 3000
LONGEST_NAME = 256  # of a file, or of a path in an archive
_QUICK = 20_000  # characters of a message that are looked at word by word


class UserError(Exception):
    """An error that the user can fix. The text is one line: what is wrong, the value found, what
    is allowed, the command to run next. Command lines print it and exit with 2; any other
    exception is a bug and keeps its traceback.

    command: the part of the text that repeats the user's own settings, which is never shortened.
    """

    def __init__(self, *text: str, command: str = "") -> None:
        super().__init__(*text)  # several in derived classes, which are pickled with them
        self.command = command


def printable(text: str) -> str:
    """A text of a user's file for one line of output. Line ends, control characters, surrogates and
    characters that turn the direction of writing become escapes: no name can forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, command: str = "") -> str:
    """A message as one printable line. Long words are shortened, and the middle of what is longer
    than LONGEST; paths do not count. A command in it is kept whole, and what is before and after
    it shortened."""
    if command:
        before, _, after = text.partition(command)
        return f"{one_line(before)} {printable(command)}{one_line(after)}"
    if len(text) > _QUICK:
        text = f"{text[: _QUICK // 2]} ... {text[-_QUICK // 2 :]}"
    words = [_shortened(printable(word)) for word in text.split()]
    whole = " ".join(words)
    if sum(map(_length, words)) <= LONGEST and len(whole) <= LONGEST + LONGEST_PATHS:
        return whole
    end = _that_fit(words[::-1], 2 * LONGEST // 5)[::-1]
    start = _that_fit(words, LONGEST - 2 * LONGEST // 5 - len(" ... "))
    return " ".join([*start, "...", *end])


def _that_fit(words: Iterable[str], room: int) -> list[str]:
    """The first words, as long as there is room for them."""
    kept: list[str] = []
    for word in words:
        room -= _length(word)
        if room < 0 or sum(map(len, kept)) > LONGEST_PATHS:
            break
        kept.append(word)
    return kept


def _length(word: str) -> int:
    return 0 if _is_path(word) else len(word) + 1


def _shortened(word: str) -> str:
    if len(word) <= LONGEST_WORD or _is_path(word):
        return word
    return f"{word[: LONGEST_WORD // 2]}...{word[-LONGEST_WORD // 4 :]}"


def _is_path(word: str) -> bool:
    """Whether a word ends with a path that exists, or could be made in a folder that exists, or is
    that of a file in an archive; its beginning may be `key=` or a quotation mark."""
    path = word[word.find(os.sep) :].strip("'\",;:()") if os.sep in word else ""
    folder, name = os.path.split(path)
    if len(name) < LONGEST_NAME and folder not in ("", os.sep) and os.path.isdir(folder):
        return True
    while len(path) - len(folder) < LONGEST_NAME and folder not in ("", os.sep):
        if os.path.isfile(folder):
            return True
        folder = os.path.dirname(folder)
    return False


def _discard_output() -> None:
    """What stdout has buffered goes nowhere, instead of an error at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    """The exit code of a command line: that of main, or 2 after printing a user error, or that
    memory or disk is exhausted, as one line. Any other exception is a bug and keeps its
    traceback."""
    try:
        code = main()
        sys.stdout.flush()  # here, where its errors are handled
        return code
    except UserError as error:
        print(f"error: {one_line(str(error), error.command)}", file=sys.stderr)
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
        _discard_output()
        return 141
    except OSError as error:
        if error.errno not in _DISK and "temporary directory" not in str(error):
            raise
        where = error.filename or "output or temporary files"
        cause = one_line(error.strerror or str(error))
        print(f"error: {where}: {cause}; free space, or set TMPDIR", file=sys.stderr)
        _discard_output()
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
