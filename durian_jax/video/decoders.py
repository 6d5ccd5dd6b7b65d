"""What libraries of C write to standard error, kept out of the program's output."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Standard error belongs to the process, so one thread at a time redirects it.
_lock = threading.Lock()


@contextmanager
def native_messages() -> Iterator[list[str]]:
    """Collect the lines that a block writes to standard error outside of Python; the list is filled when it ends.

    Decoders of pictures report damage there. The lines of all threads are collected, so keep the block short.
    """
    lines: list[str] = []
    with _lock, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
