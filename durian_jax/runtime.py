"""Settings that must be made before JAX starts."""

import os
import sys
from pathlib import Path

# Flags for CPUs; other platforms ignore them. The first two doubled the speed of a training step on an x86 CPU with
# AMX (jax 0.10). They change nothing on a CPU without AMX. The last one reduced the temporary memory of a bfloat16
# model of Stable Diffusion's size from 12.9 to 0.7 GiB. Without it, XLA converts all weights to float32 in advance.
_CPU_FLAGS = ("--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true "
              "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")


def configure() -> None:
    """Set XLA's flags and cache compiled functions on disk, unless the user has set these variables.

    Call it before anything imports jax; afterwards it does nothing.
    """
    if "jax" not in sys.modules:
        os.environ.setdefault("XLA_FLAGS", _CPU_FLAGS)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "durian" / "jax"))
