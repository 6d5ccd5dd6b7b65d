"""Stable Diffusion's autoencoder between pixels and latents (diffusers' AutoencoderKL; arXiv 2112.10752, 3.1).

Axis letters: M images, H x W pixels, h x w latents, c latent channels, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import self_attention
from durian_jax.models.codecs.config import AutoencoderKLConfig
from durian_jax.models.layers import conv, dense, group_norm
from durian_jax.models.resnet import ResnetBlock, Upsample

_EPSILON = 1e-6


class PixelAttention(nn.Module):
    """One head of self-attention over all positions of an image: (M, h, w, C) -> (M, h, w, C)."""

    norm_groups: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        m, height, width, c = x.shape
        tokens = group_norm(self.norm_groups, _EPSILON, name="norm")(x).reshape(m, height * width, 1, c)
        project = lambda name: dense(c, dtype=self.dtype, name=name)(tokens)
        mixed = self_attention(project("to_q"), project("to_k"), project("to_v"))
        return x + dense(c, dtype=self.dtype, name="to_out")(mixed.reshape(x.shape))


class MidBlock(nn.Module):
    """Residual block, attention, residual block at the latents' resolution."""

    channels: int
    norm_groups: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        resnet = lambda i: ResnetBlock(self.channels, self.norm_groups, self.dtype, _EPSILON, name=f"resnet_{i}")
        x = PixelAttention(self.norm_groups, self.dtype, name="attention")(resnet(0)(x))
        return resnet(1)(x)


class Encoder(nn.Module):
    """(M, H, W, 3) in [-1, 1] -> (M, h, w, 2 c): means and logarithms of variances."""

    config: AutoencoderKLConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        cfg = self.config
        x = conv(cfg.channels[0], dtype=self.dtype, name="conv_in")(images)
        for level, width in enumerate(cfg.channels):
            for i in range(cfg.layers):
                x = ResnetBlock(width, cfg.norm_groups, self.dtype, _EPSILON, name=f"down_{level}_resnet_{i}")(x)
            if level < len(cfg.channels) - 1:  # pad below and to the right only, as in the original's training
                x = conv(width, stride=2, padding=(0, 1), dtype=self.dtype, name=f"downsampler_{level}")(x)
        x = MidBlock(cfg.channels[-1], cfg.norm_groups, self.dtype, name="mid")(x)
        x = nn.silu(group_norm(cfg.norm_groups, _EPSILON, name="norm_out")(x))
        return conv(2 * cfg.latent_channels, dtype=self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """(M, h, w, c) -> (M, H, W, 3), about [-1, 1]."""

    config: AutoencoderKLConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        cfg = self.config
        x = conv(cfg.channels[-1], dtype=self.dtype, name="conv_in")(latents)
        x = MidBlock(cfg.channels[-1], cfg.norm_groups, self.dtype, name="mid")(x)
        for level, width in reversed(list(enumerate(cfg.channels))):
            for i in range(cfg.layers + 1):
                x = ResnetBlock(width, cfg.norm_groups, self.dtype, _EPSILON, name=f"up_{level}_resnet_{i}")(x)
            if level:
                x = Upsample(width, self.dtype, name=f"upsampler_{level}")(x)
        x = nn.silu(group_norm(cfg.norm_groups, _EPSILON, name="norm_out")(x))
        return conv(3, dtype=self.dtype, name="conv_out")(x)


class AutoencoderKL(nn.Module):
    """Pixels to latents and back. Latents are the means of the distribution, so nothing here is random."""

    config: AutoencoderKLConfig
    dtype: str = "float32"

    def setup(self):
        self.encoder = Encoder(self.config, self.dtype)
        if self.config.quant_conv:
            self.quant_conv = conv(2 * self.config.latent_channels, kernel=1, dtype=self.dtype)
            self.post_quant_conv = conv(self.config.latent_channels, kernel=1, dtype=self.dtype)
        self.decoder = Decoder(self.config, self.dtype)

    def encode(self, images: jax.Array) -> jax.Array:
        """(M, H, W, 3) in [-1, 1] -> (M, h, w, c), shifted and scaled to about zero mean and unit variance."""
        x = self.encoder(images)
        means, _ = jnp.split(self.quant_conv(x) if self.config.quant_conv else x, 2, -1)
        return (means - self.config.shift_factor) * self.config.scaling_factor

    def decode(self, latents: jax.Array, frames: int = 1) -> jax.Array:
        """(M, h, w, c) -> (M, H, W, 3), not clipped."""
        x = latents / self.config.scaling_factor + self.config.shift_factor
        return self.decoder(self.post_quant_conv(x) if self.config.quant_conv else x)
