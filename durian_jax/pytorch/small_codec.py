"""The small autoencoder of this project, for which diffusers has no class.

Axis letters: M images, H x W pixels, h x w latents, c latent channels, C channels.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from durian_jax.models.codecs.config import CodecConfig


class Encoder(nn.Module):
    """(M, 3, H, W) in [-1, 1] -> (M, c, h, w)."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config, width_in = config, config.encoder_channels[0]
        self.conv_in = nn.Conv2d(3 * config.patch**2, width_in, 3, padding=1)
        for level, width in enumerate(config.encoder_channels):
            if level:
                self.add_module(f"down_{level}", nn.Conv2d(4 * width_in, width, 1))
            for i in range(config.layers):
                self.add_module(f"level_{level}_resnet_{i}", resnet(width, config.norm_groups))
            width_in = width
        self.conv_out = nn.Conv2d(width_in, config.latent_channels, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(space_to_depth(images, self.config.patch))
        for level in range(len(self.config.encoder_channels)):
            if level:
                x = self.get_submodule(f"down_{level}")(space_to_depth(x, 2))
            for i in range(self.config.layers):
                x = self.get_submodule(f"level_{level}_resnet_{i}")(x, None)
        return self.conv_out(x)


class Decoder(nn.Module):
    """(M, c, h, w) -> (M, 3, H, W), about [-1, 1]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config, channels = config, config.decoder_channels
        self.conv_in = nn.Conv2d(config.latent_channels, channels[-1], 3, padding=1)
        for level, width in enumerate(channels):
            for i in range(config.layers + 1):
                self.add_module(f"level_{level}_resnet_{i}", resnet(width, config.norm_groups))
            if level:
                self.add_module(f"up_{level}", nn.Conv2d(width, 4 * channels[level - 1], 1))
        self.norm_out = nn.GroupNorm(config.norm_groups, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], 3 * config.patch**2, 3, padding=1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(latents)
        for level in reversed(range(len(self.config.decoder_channels))):
            for i in range(self.config.layers + 1):
                x = self.get_submodule(f"level_{level}_resnet_{i}")(x, None)
            if level:
                x = depth_to_space(self.get_submodule(f"up_{level}")(x), 2)
        return depth_to_space(self.conv_out(F.silu(self.norm_out(x))), self.config.patch)


class Codec(nn.Module):
    """The autoencoder `models.codecs.small`, with the methods of diffusers' autoencoders."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def encode(self, images: torch.Tensor) -> SimpleNamespace:
        """Encode (M, 3, H, W) in [-1, 1]; return an object with `latents` (M, c, h, w)."""
        return SimpleNamespace(latents=self.encoder(images))

    def decode(self, latents: torch.Tensor) -> SimpleNamespace:
        """Decode (M, c, h, w); return an object with `sample` (M, 3, H, W), not clipped."""
        return SimpleNamespace(sample=self.decoder(latents))


def space_to_depth(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Move patches to channels: (M, C, H, W) -> (M, patch * patch * C, H / patch, W / patch); C varies fastest."""
    m, c, height, width = x.shape
    x = x.reshape(m, c, height // patch, patch, width // patch, patch)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(m, patch * patch * c, height // patch, width // patch)


def depth_to_space(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Invert `space_to_depth`."""
    m, c, h, w = x.shape
    x = x.reshape(m, patch, patch, c // patch**2, h, w)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(m, c // patch**2, h * patch, w * patch)


def resnet(width: int, groups: int) -> ResnetBlock2D:
    """A residual block without a time bias."""
    return ResnetBlock2D(in_channels=width, temb_channels=None, groups=groups, eps=1e-5)
