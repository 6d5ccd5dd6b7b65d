"""What every family's model does between pictures and latents."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class LatentModel(nn.Module):
    """A model with an autoencoder: a subclass sets `config` (with `dtype`) and, in `setup`, `codec` (`make_codec`).

    H x W pixels, h x w latents, c latent channels.
    """

    config: Any

    def encode(self, images: jax.Array) -> jax.Array:
        """Images (..., H, W, 3) in [-1, 1] -> latents (..., h, w, c)."""
        x = self.codec.encode(images.reshape(-1, *images.shape[-3:]).astype(self.config.dtype))
        return x.reshape(*images.shape[:-3], *x.shape[1:])

    def decode(self, latents: jax.Array, temporal: bool = False) -> jax.Array:
        """Latents (..., h, w, c) -> images (..., H, W, 3) float32, about [-1, 1].

        Not clipped: a loss must see, and correct, values beyond the range.

        Args:
            temporal: the latents are clips (..., F, h, w, c); else each is a clip of one frame. Only decoders with
                temporal layers tell these apart.
        """
        frames = latents.shape[-4] if temporal else 1
        x = self.codec.decode(latents.reshape(-1, *latents.shape[-3:]).astype(self.config.dtype), frames)
        return x.reshape(*latents.shape[:-3], *x.shape[1:]).astype(jnp.float32)

    def finished(self, frames: jax.Array, condition: Any) -> jax.Array:
        """Decoded frames (B, F, H, W, 3) float32 and their condition -> the frames to show; here unchanged."""
        return frames
