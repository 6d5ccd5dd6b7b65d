"""Parameters as flat dicts, path -> array ("denoiser/conv_in/kernel").

Flat, so that a training stage is a set of paths and a file of tensors needs no conversion.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.faces.topology import K
from durian_jax.models.config import DurianConfig
from durian_jax.models.durian import Durian

FlatParams = dict[str, jax.Array]


def example_batch(config: DurianConfig, clips: int = 1, frames: int = 1, attributes: int = 1) -> dict:
    """A batch of zeros: what the model sees of a training batch (`data.pairs.sample_pair`)."""
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


def init_params(config: DurianConfig, seed: int, only: frozenset[str] | None = None) -> FlatParams:
    """Freshly initialised parameters of all networks, in one compiled call.

    Args:
        only: paths of those wanted, to spare the memory of the others; None: all.
    """
    def init():
        variables = Durian(config).init(jax.random.key(seed), **example_batch(config))
        params = flatten_dict(nn.meta.unbox(variables["params"]), sep="/")
        return params if only is None else {path: x for path, x in params.items() if path in only}
    return jax.jit(init)()


def variables(params: FlatParams) -> dict:
    """The tree that `Durian.apply` takes."""
    return {"params": unflatten_dict(params, sep="/")}
