"""Compilation by XLA, for the user: its duration, and whether the cache on disk had the compiled function."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.monitoring

from durian_jax.progress import SHORT, clock, say

# Events of JAX: a function was in the cache, the seconds that this saved, and the seconds until a function was ready.
_FOUND = "/jax/compilation_cache/cache_hits"
_SAVED = "/jax/compilation_cache/compile_time_saved_sec"
_READY = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compiling(what: str, shown: bool = True) -> Iterator[None]:
    """Show for how long a block compiles; if that is more than `SHORT`, say at the end where the function came from.

    Args:
        what: the function that the block compiles, for example "the sampler".
        shown: False shows nothing.
    """
    made, start = _Compilations(), time.monotonic()
    jax.monitoring.register_event_listener(made.event)
    jax.monitoring.register_event_duration_secs_listener(made.duration)
    try:
        with clock(f"compiling {what}", shown):
            yield
    finally:
        jax.monitoring.unregister_event_listener(made.event)
        jax.monitoring.unregister_event_duration_listener(made.duration)
    seconds = time.monotonic() - start
    if shown and seconds >= SHORT and (words := made.describe(what, seconds, jax.config.jax_compilation_cache_dir)):
        say(f"durian: {words}")


class _Compilations:
    """What JAX reports while it compiles.

    Attributes:
        compiled: seconds of compilation.
        saved: seconds that the cache has saved.
        hits: number of functions that were in the cache.
    """

    def __init__(self) -> None:
        self.compiled = self.saved = 0.0
        self.hits = 0
        self._found = False

    def event(self, name: str, **_: Any) -> None:
        if name == _FOUND:
            self._found = True
            self.hits += 1

    def duration(self, name: str, seconds: float, **_: Any) -> None:
        if name == _SAVED:
            self.saved += max(seconds, 0.0)
        elif name == _READY:
            self.compiled += 0.0 if self._found else seconds
            self._found = False

    def describe(self, what: str, seconds: float, cache: str | None) -> str:
        """Return a line about `what`, which was ready after `seconds`; "" if nothing was compiled."""
        if self.hits and self.saved >= self.compiled:
            return f"found {what} in the compile cache {cache}; ready after {seconds:.0f} s"
        if not self.compiled:
            return ""
        if cache is None:
            return (f"compiled {what} in {seconds:.0f} s, without a compile cache; JAX_COMPILATION_CACHE_DIR names a "
                    "folder for one")
        return f"compiled {what} in {seconds:.0f} s, and kept the program in the compile cache {cache}"
