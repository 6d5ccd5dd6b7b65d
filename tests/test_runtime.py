"""Settings of the process work with the installed JAX."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os
from durian_jax.runtime import configure

configure()
import jax
import jax.numpy as jnp


@jax.jit
def network(x, kernel):
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.softmax(x @ jnp.ones((64, 64)))


network(jnp.ones((1, 32, 32, 64)), jnp.ones((3, 3, 64, 64))).block_until_ready()
print(os.environ["XLA_FLAGS"])
"""


TWICE = PROGRAM.replace("import jax\n", """import jax
from collections import Counter

seen = Counter()
jax.monitoring.register_event_listener(lambda name, **_: seen.update([name.rpartition("/")[2]]))
""", 1).replace('print(os.environ["XLA_FLAGS"])', """
jnp.arange(7).sum().block_until_ready()  # takes milliseconds to compile
print(seen["compile_requests_use_cache"], seen["cache_hits"], seen["cache_misses"])""")


def test_the_same_command_compiles_nothing_again(tmp_path):
    """Nor does it compile small functions, which JAX does not keep by default."""
    environment = {name: value for name, value in os.environ.items()
                   if name != "XLA_FLAGS" and not name.startswith("JAX_PERSISTENT_CACHE_")}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu",
                    "PYTHONPATH": str(Path(__file__).parents[1])}
    (first, _, _), (second, hits, misses) = (
        map(int, subprocess.run([sys.executable, "-c", TWICE], env=environment, capture_output=True, text=True,
                                check=True).stdout.split()) for _ in range(2))
    assert first == second == hits > 3 and misses == 0


def test_compiled_functions_are_cached_on_disk(tmp_path):
    """Of convolutions and matrix products, which some of XLA's flags give to another library."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                    "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED" in done.stdout
    assert list(tmp_path.glob("jit_network-*-cache"))
