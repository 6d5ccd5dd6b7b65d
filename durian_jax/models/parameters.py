"""Parameters as flat dicts, path -> array ("denoiser/conv_in/kernel").

Flat, so that a training stage is a set of paths and a file of tensors needs no conversion.
"""

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.models.batch import axis_letters, training_fields
from durian_jax.models.family import ModelConfig
from durian_jax.models.layers import Parameter, zeros_init

FlatParams = dict[str, jax.Array]
# The same, on devices or in the host's memory.
AnyParams = Mapping[str, jax.Array | np.ndarray]


def example_batch(config: ModelConfig) -> dict[str, jax.Array]:
    """A training batch of zeros as models take it: one clip, and 1 along every other axis without a fixed size."""
    spec = training_fields(config.batch_spec())
    sizes = dict.fromkeys(axis_letters(spec), 1)
    return {name: jnp.zeros(field.shape(sizes)) for name, field in spec.items()}


@lru_cache
def _described(config: ModelConfig) -> dict[str, Parameter]:
    """Path -> description of every parameter; nothing is computed."""
    model = config.create()
    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), example_batch(config)))["params"]
    return flatten_dict(tree, sep="/")


def param_shapes(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape and type of every parameter, without making any."""
    return {path: parameter.value for path, parameter in _described(config).items()}


def param_axes(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Path -> logical axis names of every parameter."""
    return {path: parameter.names for path, parameter in _described(config).items()}


def zero_at_start(config: ModelConfig) -> frozenset[str]:
    """Paths of the parameters that start at zero; no other one is ever all zero, so that a file with one is damaged."""
    return frozenset(path for path, parameter in _described(config).items()
                     if parameter.init is zeros_init or path.endswith("/bias"))


def init_params(config: ModelConfig, seed: int, only: frozenset[str] | None = None,
                place: Callable[[str, tuple[int, ...]], jax.sharding.Sharding] | None = None) -> FlatParams:
    """Initialise the parameters of all networks one by one: a value depends on the seed and the path only.

    Args:
        only: paths to initialise; None: all.
        place: path and shape -> sharding of the parameter; None: on one device.
    """
    params = {}
    for path, parameter in _described(config).items():
        if only is None or path in only:
            shape = parameter.value.shape
            init = _init(parameter.init, shape, None if place is None else place(path, shape))
            params[path] = init(seed, np.uint32(crc32(path.encode())))
    return params


@cache
def _init(init: Callable, shape: tuple[int, ...], place: jax.sharding.Sharding | None) -> Callable:
    def make(seed, number):
        return init(jax.random.fold_in(jax.random.key(seed), number), shape, jnp.float32)
    return jax.jit(make, out_shardings=place)


def variables(params: AnyParams) -> dict:
    """The tree that a model's `apply` takes."""
    return {"params": unflatten_dict(params, sep="/")}
