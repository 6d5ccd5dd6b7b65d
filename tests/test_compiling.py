"""What the user learns about compilation."""

import io
import sys

import jax
import jax.numpy as jnp

from durian_jax import compiling as module
from durian_jax.compiling import compiling

EVENTS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/compile_time_saved_sec", \
    "/jax/core/compile/backend_compile_duration"


def told(monkeypatch, block) -> str:
    """Return what is written while `block` runs as a compilation."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(module, "SHORT", 0)
    with compiling("the sampler"):
        block()
    return log.getvalue()


def test_a_compiled_function_is_told_once(monkeypatch):
    function = jax.jit(lambda x: jnp.sin(x) * 0.123)
    first = told(monkeypatch, lambda: function(jnp.ones(3)).block_until_ready())
    assert "durian: " in first and "the sampler" in first and "compile cache" in first
    assert told(monkeypatch, lambda: function(jnp.ones(3)).block_until_ready()) == ""


def test_the_cache_is_named_where_it_had_the_function(monkeypatch):
    hit, saved, ready = EVENTS
    cache = jax.config.jax_compilation_cache_dir

    def found():
        jax.monitoring.record_event(hit)
        jax.monitoring.record_event_duration_secs(saved, 40.0)
        jax.monitoring.record_event_duration_secs(ready, 0.5)

    def missing():
        jax.monitoring.record_event_duration_secs(ready, 40.0)
    assert told(monkeypatch, found) == f"durian: found the sampler in the compile cache {cache}; ready after 0 s\n"
    assert told(monkeypatch, lambda: (found(), missing(), missing())) == (
        f"durian: compiled the sampler in 0 s, and kept the program in the compile cache {cache}\n")
    made = module._Compilations()
    made.duration(ready, 3.0)
    assert "without a compile cache; JAX_COMPILATION_CACHE_DIR names a folder" in made.describe("it", 3.0, None)


def test_listeners_leave_with_the_block(monkeypatch):
    seen = module._Compilations()
    monkeypatch.setattr(module, "_Compilations", lambda: seen)
    told(monkeypatch, lambda: jax.monitoring.record_event_duration_secs(EVENTS[2], 1.0))
    jax.monitoring.record_event_duration_secs(EVENTS[2], 5.0)
    assert seen.compiled == 1.0
