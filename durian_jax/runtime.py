"""What must be set before JAX starts."""

import os
import sys
from pathlib import Path

# For CPUs; other platforms ignore them. The first two doubled the speed of a training step on an x86 CPU with AMX (jax
# 0.10), and change nothing on one without. The last took the temporary memory of Stable Diffusion's size in bfloat16
# from 12.9 to 0.7 GiB: otherwise all weights are converted to float32 ahead of their use.
_CPU_FLAGS = ("--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true "
              "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")


def configure() -> None:
    """Set XLA's flags and keep compiled functions on disk, unless the user has set these variables.

    To be called before anything imports jax.
    """
    if "jax" not in sys.modules:
        os.environ.setdefault("XLA_FLAGS", _CPU_FLAGS)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "durian" / "jax"))
