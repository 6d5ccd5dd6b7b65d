"""A small autoencoder between pixels and latents, trained by this project (`stage=codec`)."""

import flax.linen as nn
import jax

from durian_jax.models.codecs.config import CodecConfig
from durian_jax.models.codecs.temporal import TemporalConvolution
from durian_jax.models.layers import conv, depth_to_space, picture_norm, space_to_depth
from durian_jax.models.resnet import ResnetBlock


class Encoder(nn.Module):
    """(M, H, W, 3) in [-1, 1] -> (M, h, w, c)."""

    config: CodecConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        cfg = self.config
        x = conv(cfg.encoder_channels[0], dtype=self.dtype, name="conv_in")(space_to_depth(images, cfg.patch))
        for level, width in enumerate(cfg.encoder_channels):
            if level:
                x = conv(width, kernel=1, dtype=self.dtype, name=f"down_{level}")(space_to_depth(x, 2))
            for i in range(cfg.layers):
                x = ResnetBlock(width, cfg.norm_groups, self.dtype, name=f"level_{level}_resnet_{i}")(x)
        return conv(cfg.latent_channels, dtype=self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """(B * F, h, w, c) and F -> (B * F, H, W, 3), about [-1, 1]."""

    config: CodecConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, latents: jax.Array, frames: int = 1) -> jax.Array:
        cfg = self.config
        x = conv(cfg.decoder_channels[-1], dtype=self.dtype, name="conv_in")(latents)
        for level, width in reversed(list(enumerate(cfg.decoder_channels))):
            for i in range(cfg.layers + 1):
                x = ResnetBlock(width, cfg.norm_groups, self.dtype, norm=cfg.decoder_norm,
                                name=f"level_{level}_resnet_{i}")(x)
                if cfg.temporal_kernel:
                    x = TemporalConvolution(cfg.temporal_kernel, self.dtype, name=f"level_{level}_temporal_{i}")(
                        x, frames)
            if level:
                narrow = cfg.decoder_channels[level - 1]
                x = depth_to_space(conv(4 * narrow, kernel=1, dtype=self.dtype, name=f"up_{level}")(x), 2)
        x = nn.silu(picture_norm(cfg.decoder_norm, cfg.norm_groups, name="norm_out")(x))
        return depth_to_space(conv(3 * cfg.patch**2, dtype=self.dtype, name="conv_out")(x), cfg.patch)


class Codec(nn.Module):
    """Pixels to latents of about zero mean and unit variance, and back."""

    config: CodecConfig
    dtype: str = "float32"

    def setup(self):
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)

    def encode(self, images: jax.Array) -> jax.Array:
        """(M, H, W, 3) in [-1, 1] -> (M, h, w, c)."""
        return self.encoder(images)

    def decode(self, latents: jax.Array, frames: int = 1) -> jax.Array:
        """(B * F, h, w, c) and F -> (B * F, H, W, 3), not clipped."""
        return self.decoder(latents, frames)
