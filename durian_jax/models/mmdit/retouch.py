"""Pixels under the noisy frames: a stem that reads them, and a network that retouches decoded frames by them. Ours.

B clips, F frames, G pictures, H x W pixels, h x w latents, C channels.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from durian_jax.models.layers import (
    conv,
    depth_to_space,
    group_norm,
    merge_frames,
    space_to_depth,
    split_frames,
    zeros_init,
)
from durian_jax.models.mmdit.config import (
    CHOICE_SCALE,
    NORM_GROUPS,
    SHIFT_SCALE,
    SMALLEST_SHARE,
    STEM_PATCH,
    TAKEN_SHARE,
    UNKNOWN_SHARE,
    MMDiTConfig,
    shift_layers,
)
from durian_jax.models.resnet import ResnetBlock


class PictureStem(nn.Module):
    """Pictures -> features of their pixels.

    A latent stands for 8 x 8 pixels and says in no simple way where in them an iris or a lip lies; pixels do.

    Attributes:
        config: of the transformer.
        downscale: pixels per latent, in each direction.
    """

    config: MMDiTConfig
    downscale: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pictures: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, F, H, W, C) in [-1, 1] -> fine (B, F, H / p, W / p, stem_width) and coarse (B, F, h, w, 2 * stem_width).

        p is `config.STEM_PATCH`.
        """
        width, patch = self.config.stem_width, min(STEM_PATCH, self.downscale)
        x = space_to_depth(merge_frames(pictures.astype(self.dtype)), patch)
        x = conv(width, dtype=self.dtype, name="conv_in")(x)
        x = ResnetBlock(width, NORM_GROUPS, self.dtype, name="resnet")(x)
        fine = nn.silu(group_norm(NORM_GROUPS, name="norm_out")(x)).astype(self.dtype)
        coarse = conv(2 * width, kernel=1, dtype=self.dtype, name="conv_out")(
            space_to_depth(fine, self.downscale // patch))
        return split_frames(fine, pictures.shape[1]), split_frames(coarse, pictures.shape[1])


@flax.struct.dataclass
class Pixels:
    """What lies under the frames, at their size.

    Attributes:
        pictures: (B, F, G, H, W, 3) in [-1, 1], whose pixels frames may take over; the first one is the source as it
            is, the others are turned into the driver's pose.
        masks: (B, F, G, H, W, 1), which of them count.
        features: (B, F, H / p, W / p, stem_width), the fine ones of `PictureStem`.
    """

    pictures: jax.Array
    masks: jax.Array
    features: jax.Array


def shifted(pictures: jax.Array, shifts: jax.Array) -> jax.Array:
    """Pictures whose pixels come from elsewhere, interpolated linearly; beyond the border lies the border.

    Args:
        pictures: (M, H, W, C).
        shifts: (M, H, W, 2) in pixels, x and y: where each pixel comes from, relative to its own place.

    Returns:
        (M, H, W, C).
    """
    height, width = pictures.shape[1:3]
    x = jnp.clip(jnp.arange(width) + shifts[..., 0], 0, width - 1)
    y = jnp.clip(jnp.arange(height)[:, None] + shifts[..., 1], 0, height - 1)
    one_channel = lambda channel, y, x: map_coordinates(channel, [y, x], order=1, mode="nearest")
    return jax.vmap(jax.vmap(one_channel, (-1, None, None), -1))(pictures, y, x)


class Retouch(nn.Module):
    """Decoded frames -> frames.

    A decoder that sees the pictures which its latents were made from keeps their details (as in arXiv 2306.04632).
    Half of the residual blocks find out how far the pictures must be shifted to lie on the decoded frame, place by
    place: turned pictures are sharp but their outlines lie some pixels beside the truth. The other half sees the
    shifted pictures. Every pixel of the result is a mixture of the decoded frame and these pictures, and a correction.

    Attributes:
        config: of the transformer.
        downscale: pixels per latent, in each direction.
    """

    config: MMDiTConfig
    downscale: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, frames: jax.Array, pixels: Pixels) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Decoded frames (B, F, H, W, 3) float32, about [-1, 1] -> frames, shifted pictures and their masks.

        Shifted pictures are (B, F, G, H, W, 3), their masks (B, F, G, H, W, 1) in [0, 1].
        """
        width, patch = self.config.stem_width, min(STEM_PATCH, self.downscale)
        (f, g), layers = pixels.pictures.shape[1:3], self.config.retouch_layers
        beside = jnp.concatenate([frames, pixels.pictures[:, :, 0]], -1)
        x = space_to_depth(merge_frames(beside).astype(self.dtype), patch)
        x = conv(width, dtype=self.dtype, name="conv_in")(x) + merge_frames(pixels.features)
        block = lambda i: ResnetBlock(width, NORM_GROUPS, self.dtype, name=f"resnets_{i}")
        for i in range(shift_layers(layers)):
            x = block(i)(x)

        hidden = nn.silu(group_norm(NORM_GROUPS, name="norm_shift")(x)).astype(self.dtype)
        shifts = conv(2 * g, kernel_init=zeros_init, dtype=self.dtype, name="conv_shift")(hidden).astype(jnp.float32)
        shifts = SHIFT_SCALE * jax.image.resize(shifts, (len(x), *frames.shape[2:4], 2 * g), "linear")
        layered = jnp.concatenate([pixels.pictures, pixels.masks], -1).astype(jnp.float32)              # B F G H W 4
        layered = shifted(merge_frames(merge_frames(layered)), jnp.moveaxis(
            shifts.reshape(*shifts.shape[:3], g, 2), 3, 1).reshape(-1, *frames.shape[2:4], 2))
        layered = split_frames(split_frames(layered, g), f)
        # Pixels next to unknown ones, which are 0, keep their colour.
        masks, pictures = layered[..., 3:], layered[..., :3] / jnp.maximum(layered[..., 3:], SMALLEST_SHARE)
        seen = merge_frames(jnp.concatenate([pictures[:, :, i] for i in range(g)], -1)).astype(self.dtype)
        x += conv(width, kernel=1, kernel_init=zeros_init, dtype=self.dtype, name="conv_shifted")(
            space_to_depth(seen, patch))

        for i in range(shift_layers(layers), layers):
            x = block(i)(x)
        x = nn.silu(group_norm(NORM_GROUPS, name="norm_out")(x)).astype(self.dtype)
        x = conv(patch**2 * (3 + g), kernel_init=zeros_init, dtype=self.dtype, name="conv_out")(x)
        x = split_frames(depth_to_space(x, patch).astype(jnp.float32), f)                               # B F H W 3+G
        correction, logits = x[..., :3], jnp.moveaxis(x[..., 3:], -1, 2)                                # B F G H W
        logits = CHOICE_SCALE * logits + jnp.log(TAKEN_SHARE * masks[..., 0] + UNKNOWN_SHARE)
        shares = nn.softmax(jnp.concatenate([jnp.zeros_like(logits[:, :, :1]), logits], 2), 2)[:, :, 1:, ..., None]
        return frames + correction + (shares * (pictures - frames[:, :, None])).sum(2), pictures, masks
