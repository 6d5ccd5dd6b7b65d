"""Exceptions with a message for the user, and parts of messages; any other exception means a bug in the program."""

import reprlib
from collections.abc import Collection
from typing import Any


class InputError(ValueError):
    """Input from the user that cannot be used.

    The message says what was expected, what was found and what to do next. The command line prints it
    without a traceback and exits with status 2. Code raises it before any expensive work starts.
    """

    status = 2


class ClusterError(InputError):
    """Processes of a run that did not find each other, or lost one; a launcher may restart the run after status 1."""

    status = 1


class DiskFull(InputError):
    """A file that could not be written because its disk is full."""


# A message stays one line that a terminal can show, whatever the file says.
_NAMED, _LONGEST = 5, 80


def shown(value: Any, longest: int = _LONGEST) -> str:
    """A value of a file for a message: its literal, cut in the middle."""
    short = reprlib.Repr()
    short.maxlevel, short.maxlist, short.maxtuple, short.maxdict = 2, 6, 6, 4
    short.maxstring = short.maxlong = short.maxother = longest
    return cut(short.repr(value), longest)


def cut(text: str, longest: int = 200) -> str:
    """One line of printable text, cut in the middle if it is longer than this number of characters."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in " ".join(text.split()))
    half = (longest - 5) // 2
    return line if len(line) <= longest else f"{line[:half]} ... {line[-half:]}"


def listed(names: Collection[str], most: int = _NAMED, longest: int = _LONGEST) -> str:
    """Names for a message, separated by commas: the first ones, and how many there are in all."""
    first = ", ".join(cut(name, longest) for name, _ in zip(names, range(most), strict=False))
    return first if len(names) <= most else f"{first}, ... ({len(names)} in all)"
