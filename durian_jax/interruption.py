"""Ctrl-C and SIGTERM: a command ends with one line, also while its main thread computes outside of Python.

Python runs signal handlers in the main thread, between two instructions. XLA compiles and computes for minutes without
returning to Python. Therefore a second thread watches: if the main thread does not answer, it ends the process.
"""

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from durian_jax.files import remove_temporaries

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

# Seconds in which the main thread must answer a signal, and then clean up.
_PATIENCE, _CLEANING = 2.0, 20.0


class Terminated(KeyboardInterrupt):
    """SIGTERM; code that handles Ctrl-C handles it, too."""


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """Return the signal that an exception stands for."""
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


def exit_status(number: int) -> int:
    """Return the exit status of a program that a signal stopped, as shells count: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def stop_message(number: int, kept: str) -> str:
    """Return the line that a stopped command prints.

    Args:
        number: the signal.
        kept: what the command leaves behind, and how to go on.
    """
    return f"durian: stopped ({_NAMES[signal.Signals(number)]}): {kept}"


def ignore_interrupts() -> None:
    """Let only the parent answer Ctrl-C, which a terminal sends to all processes. Call it first in worker processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Stoppable:
    """Context in which both signals raise an exception: SIGINT a KeyboardInterrupt, SIGTERM a `Terminated`.

    If the main thread computes outside of Python, temporary files are removed and the process exits. Code that
    installs a handler of its own, such as a training loop that finishes its step first, is left alone, except that a
    second Ctrl-C always ends the process. Outside of the main thread the context does nothing.

    Args:
        kept: returns the end of `stop_message` if the main thread does not answer.
    """

    def __init__(self, kept: Callable[[], str]):
        self._kept = kept
        self._answered = threading.Event()
        self._deadline: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stoppable":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._screen = os.dup(2)  # a command may redirect standard error
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._raise) for number in _SIGNALS}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
            self._answered.set()
            os.close(self._write)  # ends the thread
            self._thread.join()
            if self._deadline is not None:
                self._deadline.cancel()
            os.close(self._screen)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self._answered.set()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _watch(self) -> None:
        interrupts = 0
        with os.fdopen(self._read, "rb", buffering=0) as signals:
            while byte := signals.read(1):
                number = byte[0]
                interrupts += number == signal.SIGINT
                if number not in _SIGNALS or not (signal.getsignal(number) == self._raise or interrupts > 1):
                    continue
                if self._answered.wait(_PATIENCE) and interrupts < 2:
                    # The main thread cleans up, and may wait for a thread or a process that does not end.
                    self._deadline = threading.Timer(_CLEANING, self._leave, (number,))
                    self._deadline.daemon = True
                    self._deadline.start()
                else:
                    self._leave(number)

    def _leave(self, number: int) -> None:
        remove_temporaries()
        os.write(self._screen, f"\n{stop_message(number, self._kept())}\n".encode())
        os._exit(exit_status(number))


def stoppable(kept: Callable[..., str]) -> Callable[[Callable], Callable]:
    """Decorate the function of a verb: Ctrl-C and SIGTERM end it with one line and status 130 or 143.

    Args:
        kept: gets the function's arguments; returns what the command leaves behind and how to go on.
    """
    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            left = lambda: kept(**named)
            try:
                with Stoppable(left):
                    return function(*arguments, **named)
            except KeyboardInterrupt as error:
                number = signal_of(error)
                print(stop_message(number, left()), file=sys.stderr, flush=True)
                raise SystemExit(exit_status(number)) from None
        run.kept = kept
        return run
    return decorate
