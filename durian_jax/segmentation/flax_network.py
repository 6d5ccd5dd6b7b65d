"""The segmentation networks in Flax, to train them; `network` runs them without JAX.

A U-Net (Ronneberger et al. 2015) with group norms. Blocks of 2 x 2 pixels enter and leave as channels, which makes the
first and the last layers four times cheaper.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.segmentation.network import EPSILON, GROUPS, blocks_to_channels, channels_to_blocks

WIDTHS = (32, 48, 64, 64)
EYE_WIDTHS = (24, 32, 48)


class SegmentationNetwork(nn.Module):
    """(N, H, W, CHANNELS) `features.head_features` -> (N, H, W, 4) logits of `ATTRIBUTE_KINDS`; H and W divide by 16.

    Attributes:
        widths: channels from the finest to the coarsest level.
    """

    widths: tuple[int, ...] = WIDTHS

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x, kept = blocks_to_channels(x), []
        for level, width in enumerate(self.widths):
            if level:
                x = nn.max_pool(x, (2, 2), (2, 2))
            x = self._block(x, width, f"down_{level}")
            kept.append(x)
        # The whole picture, e.g. whether it is bright, changes every pixel.
        whole = nn.relu(nn.Dense(self.widths[-1], name="whole_0")(x.mean((1, 2), keepdims=True)))
        x = x + nn.Dense(self.widths[-1], name="whole_1")(whole)
        for level in reversed(range(len(self.widths) - 1)):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = nn.Conv(self.widths[level], (1, 1), name=f"join_{level}")(x)
            x = self._block(jnp.concatenate([x, kept[level]], axis=-1), self.widths[level], f"up_{level}")
        return channels_to_blocks(nn.Conv(4 * len(ATTRIBUTE_KINDS), (1, 1), name="out")(x))

    def _block(self, x: Array, width: int, name: str) -> Array:
        for number in range(2):
            x = nn.Conv(width, (3, 3), use_bias=False, name=f"{name}_conv_{number}")(x)
            x = nn.relu(nn.GroupNorm(GROUPS, epsilon=EPSILON, name=f"{name}_norm_{number}")(x))
        return x


class EyeNetwork(nn.Module):
    """(N, P, Q, 3) `features.eye_features` -> (N,) logits that glasses are worn.

    Attributes:
        widths: channels of the convolutions; the resolution halves between them.
    """

    widths: tuple[int, ...] = EYE_WIDTHS

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = blocks_to_channels(x)
        for number, width in enumerate(self.widths):
            if number:
                x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.Conv(width, (3, 3), use_bias=False, name=f"eyes_conv_{number}")(x)
            x = nn.relu(nn.GroupNorm(GROUPS, epsilon=EPSILON, name=f"eyes_norm_{number}")(x))
        # The gradient of `max` divides by the number of maxima, which some compilations find to be zero.
        largest = nn.max_pool(x, x.shape[1:3])[:, 0, 0]
        x = jnp.concatenate([x.mean((1, 2)), largest], axis=-1)
        return nn.Dense(1, name="eyes_out")(nn.relu(nn.Dense(32, name="eyes_whole")(x)))[:, 0]
