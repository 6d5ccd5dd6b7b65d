"""Networks of PyTorch and of Flax with the same weights."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import unflatten_dict

from durian_jax.convert.names import Tensor


def make(cls, values: dict) -> torch.nn.Module:
    """Build a class of diffusers from the fields of a config.json."""
    return cls(**{name: value for name, value in values.items() if not name.startswith("_")})


@torch.no_grad()
def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model for inference. Biases and scales are changed: a 0 or 1 would hide a wrong use."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def our_params(state: dict[str, torch.Tensor], tensors: Iterable[Tensor], prefix: str = "") -> dict[str, jax.Array]:
    """Return our parameters, and remove each tensor from `state`: memory holds one copy of a large network.

    Args:
        prefix: of our paths, which is removed.
    """
    return {tensor.path.removeprefix(prefix): jnp.array(tensor.to_ours(state.pop(tensor.name).numpy()))
            for tensor in tensors}


def inside(params: dict, prefix: str) -> dict:
    """Return the parameters of a module in a network."""
    return {path.removeprefix(f"{prefix}/"): x for path, x in params.items() if path.startswith(f"{prefix}/")}


def apply(call: Callable, params: dict, *inputs, module=None) -> jax.Array:
    """Compile and run a Flax module, or a function of one, with flat parameters."""
    module, method = (call, None) if module is None else (module, call)
    tree = {"params": unflatten_dict(params, sep="/")}
    return jax.jit(lambda variables, *args: module.apply(variables, *args, method=method))(tree, *inputs)


def last(x: np.ndarray) -> np.ndarray:
    """(M, C, h, w) -> (M, h, w, C)."""
    return x.transpose(0, 2, 3, 1)


def first(x):
    """(M, h, w, C) -> (M, C, h, w)."""
    return x.transpose(0, 3, 1, 2)
