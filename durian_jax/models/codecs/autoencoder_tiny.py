"""A small autoencoder with Stable Diffusion's latents (diffusers' AutoencoderTiny), for quick looks.

Axis letters: M images, H x W pixels, h x w latents, c latent channels, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.codecs.config import AutoencoderTinyConfig
from durian_jax.models.layers import conv, double_size


class TinyBlock(nn.Module):
    """Three convolutions with a skip around them: (M, h, w, C) -> (M, h, w, C)."""

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.relu(conv(self.channels, dtype=self.dtype, name="conv1")(x))
        hidden = nn.relu(conv(self.channels, dtype=self.dtype, name="conv2")(hidden))
        return nn.relu(x + conv(self.channels, dtype=self.dtype, name="conv3")(hidden))


class TinyEncoder(nn.Module):
    """(M, H, W, 3) in [-1, 1] -> (M, h, w, c)."""

    config: AutoencoderTinyConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        cfg = self.config
        x = conv(cfg.channels, dtype=self.dtype, name="conv_in")((images + 1) / 2)
        for level, blocks in enumerate(cfg.encoder_blocks):
            if level:
                x = conv(cfg.channels, stride=2, use_bias=False, dtype=self.dtype, name=f"down_{level}")(x)
            for i in range(blocks):
                x = TinyBlock(cfg.channels, self.dtype, name=f"level_{level}_block_{i}")(x)
        return conv(cfg.latent_channels, dtype=self.dtype, name="conv_out")(x)


class TinyDecoder(nn.Module):
    """(M, h, w, c) -> (M, H, W, 3), about [-1, 1]."""

    config: AutoencoderTinyConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        cfg = self.config
        x = nn.relu(conv(cfg.channels, dtype=self.dtype, name="conv_in")(3 * jnp.tanh(latents / 3)))
        for level, blocks in enumerate(cfg.decoder_blocks):
            if level:
                x = conv(cfg.channels, use_bias=False, dtype=self.dtype, name=f"up_{level}")(double_size(x))
            for i in range(blocks):
                x = TinyBlock(cfg.channels, self.dtype, name=f"level_{level}_block_{i}")(x)
        return conv(3, dtype=self.dtype, name="conv_out")(x) * 2 - 1


class AutoencoderTiny(nn.Module):
    """Pixels to latents and back."""

    config: AutoencoderTinyConfig
    dtype: str = "float32"

    def setup(self):
        self.encoder = TinyEncoder(self.config, self.dtype)
        self.decoder = TinyDecoder(self.config, self.dtype)

    def encode(self, images: jax.Array) -> jax.Array:
        """(M, H, W, 3) in [-1, 1] -> (M, h, w, c)."""
        return self.encoder(images) * self.config.scaling_factor

    def decode(self, latents: jax.Array, frames: int = 1) -> jax.Array:
        """(M, h, w, c) -> (M, H, W, 3), not clipped."""
        return self.decoder(latents / self.config.scaling_factor)
