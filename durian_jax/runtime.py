"""What must be set before JAX starts."""

import os
import sys

# They double the speed of a training step on x86 CPUs (jax 0.10); other platforms ignore them.
_CPU_FLAGS = "--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true"


def configure() -> None:
    """Set XLA's flags, unless the user has; to be called before anything imports jax."""
    if "jax" not in sys.modules:
        os.environ.setdefault("XLA_FLAGS", _CPU_FLAGS)
