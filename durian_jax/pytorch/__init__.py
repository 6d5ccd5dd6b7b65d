"""Inference in PyTorch, on diffusers' modules: `durian_jax.torch` is the public name. Imports no jax."""

from durian_jax.errors import InputError
from durian_jax.installation import install_command

try:
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise InputError(f"the torch backend needs torch, diffusers and transformers ({error}); run "
                     + install_command("torch")) from error
