"""What the shared pipeline needs of a family's networks."""

from abc import ABC

import torch
from torch import nn

from durian_jax.models.family import ModelConfig
from durian_jax.pytorch import codecs


class Networks(nn.Module, ABC):
    """All networks of a model; a submodule is a folder of an export.

    I images, H x W pixels, h x w latents, c latent channels.

    Attributes:
        config: sizes.
        vae: the autoencoder.
    """

    config: ModelConfig
    vae: nn.Module

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (I, 3, H, W) in [-1, 1] -> latents (I, c, h, w)."""
        return codecs.encode(self.vae, self.config.codec, images)

    def decode(self, latents: torch.Tensor, frames: int = 1) -> torch.Tensor:
        """Latents (B * F, c, h, w) of clips of F frames -> images (B * F, 3, H, W) float32, about [-1, 1]."""
        return codecs.decode(self.vae, self.config.codec, latents, frames)
