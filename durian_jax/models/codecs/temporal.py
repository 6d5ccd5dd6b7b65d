"""Convolution over time for decoders, as video autoencoders have it.

A decoder of single frames blurs the outlines of every frame in another way, and they shimmer.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.layers import dense, layer_norm, split_frames, zeros_init


class TemporalConvolution(nn.Module):
    """Every place mixes its features with those of the same place in neighbouring frames: (B * F, h, w, C) -> the same.

    The zero-initialised result is added to the frames. Before the first frame and after the last one, the nearest frame
    repeats, so that one frame alone is a clip that stands still.

    Attributes:
        kernel: odd number of frames that one place sees.

    Args of the call: (B * F, h, w, C) and F.
    """

    kernel: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, frames: int) -> jax.Array:
        reach = self.kernel // 2
        hidden = split_frames(nn.silu(layer_norm(name="norm")(x)), frames)
        padded = jnp.pad(hidden, ((0, 0), (reach, reach), *((0, 0),) * 3), "edge")
        near = jnp.concatenate([padded[:, i:i + frames] for i in range(self.kernel)], -1)
        mixed = dense(x.shape[-1], kernel_init=zeros_init, dtype=self.dtype, name="conv")(near)
        return x + mixed.reshape(x.shape)
