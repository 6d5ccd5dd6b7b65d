"""CLIP's vision transformer with projection (arXiv 2103.00020; transformers' CLIPVisionModelWithProjection).

Axis letters: M images, H x W pixels, L = 1 + patches tokens, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import merge_heads, self_attention, split_heads
from durian_jax.models.image_encoder_config import CLIP_MEAN, CLIP_STD, ImageEncoderConfig
from durian_jax.models.layers import dense, layer_norm, logical, patch_conv


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward with CLIP's quick GELU: (M, L, C) -> (M, L, C)."""

    config: ImageEncoderConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.config
        hidden = layer_norm(name="norm1")(x)
        project = lambda name: split_heads(dense(cfg.channels, dtype=self.dtype, name=name)(hidden), cfg.heads)
        mixed = merge_heads(self_attention(project("to_q"), project("to_k"), project("to_v")))
        x += dense(cfg.channels, dtype=self.dtype, name="to_out")(mixed)
        hidden = dense(cfg.mlp_channels, dtype=self.dtype, name="mlp_1")(layer_norm(name="norm2")(x))
        return x + dense(cfg.channels, dtype=self.dtype, name="mlp_2")(hidden * nn.sigmoid(1.702 * hidden))


class ImageEncoder(nn.Module):
    """Images to embeddings, one vector per image."""

    config: ImageEncoderConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalised images (M, S, S, 3) of the encoder's own size -> (M, projection)."""
        cfg = self.config
        patches = patch_conv(cfg.channels, cfg.patch, dtype=self.dtype, name="patch_embedding")(images)
        patches = patches.reshape(images.shape[0], -1, cfg.channels)
        small = nn.initializers.normal(0.02)
        first = self.param("class_embedding", logical(small, "out"), (cfg.channels,)).astype(patches.dtype)
        first = jnp.broadcast_to(first, (images.shape[0], 1, cfg.channels))
        x = jnp.concatenate([first, patches], 1)
        x += self.param("position_embedding", logical(small, "length", "out"), x.shape[1:]).astype(x.dtype)
        x = layer_norm(name="norm_in")(x).astype(self.dtype)
        for i in range(cfg.layers):
            x = EncoderLayer(cfg, self.dtype, name=f"layers_{i}")(x)
        x = layer_norm(name="norm_out")(x[:, 0])
        return dense(cfg.projection, use_bias=False, dtype=self.dtype, name="projection")(x)

    def embed(self, images: jax.Array) -> jax.Array:
        """Images (M, H, W, 3) in [-1, 1], any size -> (M, projection)."""
        side = self.config.image_size
        images = jax.image.resize(images, (images.shape[0], side, side, 3), "cubic")
        return self((images * 0.5 + 0.5 - jnp.array(CLIP_MEAN)) / jnp.array(CLIP_STD))
