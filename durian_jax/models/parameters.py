"""Parameters as flat dicts, path -> array ("denoiser/conv_in/kernel").

Flat, so that a training stage is a set of paths and a file of tensors needs no conversion.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.faces.topology import K
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian
from durian_jax.models.layers import Parameter

FlatParams = dict[str, jax.Array]


def example_batch(config: DurianConfig, clips: int = 1, frames: int = 1, attributes: int = 1) -> dict:
    """A batch of zeros: what the model sees of a training batch (`data.samples.durian.sample_pair`)."""
    s = config.image_size
    shapes = {
        "frames": (clips, frames, s, s, 3), "keypoints": (clips, frames, K, 3),
        "portrait": (clips, s, s, 3), "portrait_mask": (clips, s, s, 1),
        "attributes": (clips, attributes, s, s, 3), "attribute_masks": (clips, attributes, s, s, 1),
        "attribute_valid": (clips, attributes),
    }
    if config.identity_dim is not None:
        shapes["identity"] = (clips, config.identity_dim)
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}


@lru_cache
def _described(config: DurianConfig) -> dict[str, Parameter]:
    """Path -> description of every parameter; nothing is computed."""
    tree = jax.eval_shape(lambda: Durian(config).init(jax.random.key(0), **example_batch(config)))["params"]
    return flatten_dict(tree, sep="/")


def param_shapes(config: DurianConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape and type of every parameter, without making any."""
    return {path: parameter.value for path, parameter in _described(config).items()}


def param_axes(config: DurianConfig) -> dict[str, tuple[str, ...]]:
    """Path -> logical axis names of every parameter."""
    return {path: parameter.names for path, parameter in _described(config).items()}


def init_params(config: DurianConfig, seed: int, only: frozenset[str] | None = None,
                place: Callable[[str, tuple[int, ...]], jax.sharding.Sharding] | None = None) -> FlatParams:
    """Freshly initialised parameters of all networks, one by one: a value follows from the seed and its path.

    Args:
        only: paths of those wanted; None: all.
        place: path and shape to where the parameter is to lie; None: on one device.
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


def variables(params: FlatParams) -> dict:
    """The tree that `Durian.apply` takes."""
    return {"params": unflatten_dict(params, sep="/")}
