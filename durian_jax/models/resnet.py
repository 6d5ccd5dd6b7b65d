"""Residual blocks, downsampling and upsampling, as in diffusers' U-Nets."""

import flax.linen as nn
import jax

from durian_jax.models.layers import conv, dense, double_size, picture_norm


class ResnetBlock(nn.Module):
    """Twice a normalisation, SiLU and convolution, with a time bias in between: (M, h, w, C_in) -> (M, h, w, C).

    Attributes:
        norm: kind of `layers.picture_norm`.
    """

    channels: int
    norm_groups: int
    dtype: str = "float32"
    epsilon: float = 1e-5
    norm: str = "group"

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        hidden = conv(self.channels, dtype=self.dtype, name="conv1")(
            nn.silu(picture_norm(self.norm, self.norm_groups, self.epsilon, name="norm1")(x)))
        if time is not None:
            bias = dense(self.channels, dtype=self.dtype, name="time_emb_proj")(nn.silu(time))
            hidden += bias[:, None, None]
        hidden = conv(self.channels, dtype=self.dtype, name="conv2")(
            nn.silu(picture_norm(self.norm, self.norm_groups, self.epsilon, name="norm2")(hidden)))
        if x.shape[-1] != self.channels:
            x = conv(self.channels, kernel=1, dtype=self.dtype, name="conv_shortcut")(x)
        return x + hidden


class Downsample(nn.Module):
    """Halve the resolution by a convolution of stride 2."""

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv(self.channels, stride=2, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Double the resolution by repetition, then a convolution."""

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv(self.channels, dtype=self.dtype, name="conv")(double_size(x))
