"""Inference in PyTorch, on diffusers' modules: `durian_jax.torch` is the public name. Imports no jax."""

from importlib.util import find_spec

from durian_jax.errors import InputError
from durian_jax.installation import install_command

# They are looked up and not imported, which takes many seconds: other mistakes are named first.
_missing = [name for name in ("torch", "diffusers", "transformers") if find_spec(name) is None]
if _missing:
    raise InputError(f"the torch backend needs torch, diffusers and transformers; {' and '.join(_missing)} "
                     f"{'is' if len(_missing) == 1 else 'are'} not installed; run " + install_command("torch"))
