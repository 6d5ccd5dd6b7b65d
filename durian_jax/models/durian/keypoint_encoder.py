"""Keypoint images to a bias on DNet's first features (the paper, section 3.1; Animate Anyone's pose guider)."""

import flax.linen as nn
import jax

from durian_jax.models.layers import conv, space_to_depth, zeros_init


class KeypointEncoder(nn.Module):
    """(M, H, W, 3) drawn keypoints in [0, 1] -> (M, h, w, channels), zero at initialisation."""

    channels: int
    widths: tuple[int, ...]
    patch: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.silu(conv(self.widths[0], dtype=self.dtype, name="conv_in")(space_to_depth(images, self.patch)))
        for i, width in enumerate(self.widths):
            x = nn.silu(conv(width, stride=2, dtype=self.dtype, name=f"blocks_{i}")(x))
        return conv(self.channels, kernel_init=zeros_init, dtype=self.dtype, name="conv_out")(x)
