"""Standard error: progress of long work, drawn in a terminal or notebook, one line at a time in a log.

Messages of libraries go elsewhere, if they are not for the user.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO

from tqdm import tqdm

# Work that takes fewer seconds is over before somebody waits for it.
SHORT = 2.0


def progress_bar(iterable: Iterable | None = None, *, log_seconds: float = 10, file: TextIO | None = None,
                 **options: Any) -> tqdm:
    """Return a progress bar.

    Args:
        iterable: what to count; None: call `update`.
        log_seconds: seconds between two lines of a log.
        file: where to write; None: standard error.
        options: of tqdm.
    """
    if is_log(file):
        return _LogBar(iterable, log_seconds, **{**options, "file": _Lines(file or sys.stderr)})
    return tqdm(iterable, file=file, **options)


def is_log(file: TextIO | None = None) -> bool:
    """Return whether a file, or standard error, keeps lines, so that none can be drawn again."""
    if file is None and sys.stderr is not sys.__stderr__:
        return False  # a notebook replaces it and can draw a bar
    return not (file or sys.stderr).isatty()


def say(text: str) -> None:
    """Write lines to standard error, above the bars that are being drawn."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def messages_into(file: IO[bytes]) -> Iterator[None]:
    """Write what a block prints on standard error, also outside of Python, into an open file instead."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def clock(words: str, shown: bool = True, log_seconds: float = 10) -> Iterator[Callable[[str], None]]:
    """Show for how long a block has been running, once it has taken `SHORT`.

    Args:
        words: what the block does.
        shown: False shows nothing.
        log_seconds: seconds between two lines of a log.

    Yields:
        A function that changes the words.
    """
    stop = threading.Event()
    bar = progress_bar(desc=words, bar_format="{desc}, {elapsed}", leave=False, delay=SHORT, miniters=1,
                       disable=not shown, log_seconds=log_seconds)

    def tick() -> None:
        while not stop.wait(0.5):
            bar.update()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield lambda changed: bar.set_description_str(changed, refresh=False)
    finally:
        stop.set()
        thread.join()
        bar.close()


class _LogBar(tqdm):
    """A bar that writes its first line soon, then one every `log_seconds`, and the last one at the end."""

    def __init__(self, iterable: Iterable | None, log_seconds: float, **options: Any):
        self._log_seconds, self._next = log_seconds, 0.0
        # At position 0, a bar inside of another one moves no cursor.
        super().__init__(iterable, **options, mininterval=min(SHORT, log_seconds), position=0)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line if it is time; tqdm gives the position when the bar closes."""
        if pos is None:
            if time.monotonic() < self._next:
                return False
            self._next = time.monotonic() + self._log_seconds
        return super().display(msg, pos)


class _Lines:
    """A log, in which each update of a bar becomes a new line."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, text: str) -> None:
        for line in text.replace("\r", "\n").splitlines():
            if line.strip():
                self._file.write(line.rstrip() + "\n")

    def flush(self) -> None:
        self._file.flush()
