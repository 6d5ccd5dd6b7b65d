"""Messages that C libraries write to standard error, kept out of the program's output."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from durian_jax.progress import messages_into

# Standard error belongs to the process, so one thread at a time redirects it.
_lock = threading.Lock()


@contextmanager
def native_messages() -> Iterator[list[str]]:
    """Collect the lines that a block writes to standard error outside of Python; the list is filled when it ends.

    Decoders of pictures report damage there. The lines of all threads are collected, so keep the block short.
    """
    lines: list[str] = []
    with _lock, tempfile.TemporaryFile() as file:
        try:
            with messages_into(file):
                yield lines
        finally:
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
