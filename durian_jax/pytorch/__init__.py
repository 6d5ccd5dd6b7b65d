"""Inference in PyTorch, on diffusers' modules: `durian_jax.torch` is the public name. Imports no jax."""

from durian_jax.errors import InputError

try:
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise InputError(f"the torch backend needs torch, diffusers and transformers ({error}); run "
                     "pip install 'durian-jax[torch]'") from error
