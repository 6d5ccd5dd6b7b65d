"""Layers that all networks share.

Axis letters: B clips, F frames, h x w latents, N = h * w tokens, C channels.
Every parameter carries logical axis names, which a sharding table can map to mesh axes.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

# What the backward pass recomputes in every block, to save memory: nothing; everything but the products with weights;
# everything.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}

default_init = nn.initializers.lecun_normal()
zeros_init = nn.initializers.zeros_init()


class Parameter(nn.LogicallyPartitioned):
    """A parameter with its logical axis names and its initialiser."""

    init: Callable | None = flax.struct.field(default=None, pytree_node=False)


def logical(init, *axes: str):
    """An initialiser whose parameter carries logical axis names, and the initialiser itself."""
    return lambda *args: Parameter(init(*args), axes, init=init)


def dense(features: int, *, use_bias: bool = True, kernel_init=default_init, bias_init=zeros_init,
          dtype: str = "float32", axes: tuple[str, str] = ("in", "out"), name: str | None = None) -> nn.Dense:
    """Linear layer on the last axis: (..., C) -> (..., features).

    Args:
        axes: logical names of both axes: "in" and "out", or "heads" and "mlp" for axes that may stay sharded.
    """
    return nn.Dense(features, use_bias, dtype, name=name, kernel_init=logical(kernel_init, *axes),
                    bias_init=logical(bias_init, axes[1]))


# Logical axes of projections: into and out of attention heads, into and out of a feed-forward layer.
TO_HEADS, FROM_HEADS, TO_HIDDEN, FROM_HIDDEN = ("in", "heads"), ("heads", "out"), ("in", "mlp"), ("mlp", "out")


def conv(features: int, kernel: int = 3, stride: int = 1, *, padding: tuple[int, int] | None = None,
         use_bias: bool = True, kernel_init=default_init, dtype: str = "float32",
         name: str | None = None) -> nn.Conv:
    """Convolution: (M, h, w, C) -> (M, h / stride, w / stride, features).

    Args:
        padding: before and after each axis; None: kernel // 2 on each side, as in PyTorch; for stride 2 this differs
            from XLA's "SAME".
    """
    return nn.Conv(features, (kernel, kernel), stride, [padding or (kernel // 2, kernel // 2)] * 2,
                   use_bias=use_bias, dtype=dtype, name=name,
                   kernel_init=logical(kernel_init, "height", "width", "in", "out"),
                   bias_init=logical(zeros_init, "out"))


def patch_conv(features: int, patch: int, *, dtype: str = "float32", name: str | None = None) -> nn.Conv:
    """Project every patch to a token, without a bias: (M, H, W, C) -> (M, H / patch, W / patch, features)."""
    return conv(features, patch, patch, padding=(0, 0), use_bias=False, dtype=dtype, name=name)


def group_norm(groups: int, epsilon: float = 1e-5, name: str | None = None) -> nn.GroupNorm:
    """Group normalisation over all axes between the first and the last, computed and returned in float32."""
    return nn.GroupNorm(groups, epsilon=epsilon, dtype=jnp.float32, name=name,
                        bias_init=logical(zeros_init, "norm"),
                        scale_init=logical(nn.initializers.ones_init(), "norm"))


def layer_norm(epsilon: float = 1e-5, name: str | None = None) -> nn.LayerNorm:
    """Layer normalisation over the last axis, computed and returned in float32."""
    return nn.LayerNorm(epsilon=epsilon, dtype=jnp.float32, name=name, bias_init=logical(zeros_init, "norm"),
                        scale_init=logical(nn.initializers.ones_init(), "norm"))


def picture_norm(kind: str, groups: int, epsilon: float = 1e-5, name: str | None = None) -> nn.Module:
    """A normalisation of (M, h, w, C).

    Args:
        kind: "group" looks at groups of channels in the whole picture; "pixel" at all channels of one place, so that no
            place sees a change in another one.
    """
    return group_norm(groups, epsilon, name) if kind == "group" else layer_norm(epsilon, name)


def timestep_embedding(timesteps: jax.Array, width: int) -> jax.Array:
    """Sinusoidal code of diffusion time, as in Stable Diffusion (cosine half first).

    Args:
        timesteps: (...) in [0, 1000].
        width: even number of features.

    Returns:
        (..., width) float32.
    """
    frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(width // 2) / (width // 2))
    angles = timesteps[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


def space_to_depth(images: jax.Array, patch: int) -> jax.Array:
    """(M, H, W, C) -> (M, H / patch, W / patch, patch * patch * C)."""
    m, height, width, c = images.shape
    x = images.reshape(m, height // patch, patch, width // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(m, height // patch, width // patch, patch * patch * c)


def depth_to_space(x: jax.Array, patch: int) -> jax.Array:
    """The inverse of `space_to_depth`."""
    m, h, w, c = x.shape
    x = x.reshape(m, h, w, patch, patch, c // (patch * patch))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(m, h * patch, w * patch, c // (patch * patch))


def double_size(x: jax.Array) -> jax.Array:
    """(M, h, w, C) -> (M, 2 h, 2 w, C) by repetition."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def merge_frames(x: jax.Array) -> jax.Array:
    """(B, F, ...) -> (B * F, ...): convolutions treat frames as a batch."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def split_frames(x: jax.Array, frames: int) -> jax.Array:
    """(B * F, ...) -> (B, F, ...)."""
    return x.reshape(x.shape[0] // frames, frames, *x.shape[1:])
