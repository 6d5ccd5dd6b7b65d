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
    """(B * F, c, h, w) and F -> (B * F, 3, H, W), about [-1, 1]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config, channels = config, config.decoder_channels
        self.conv_in = nn.Conv2d(config.latent_channels, channels[-1], 3, padding=1)
        for level, width in enumerate(channels):
            for i in range(config.layers + 1):
                self.add_module(f"level_{level}_resnet_{i}", resnet(width, config.norm_groups, config.decoder_norm))
                if config.temporal_kernel:
                    self.add_module(f"level_{level}_temporal_{i}", TemporalConvolution(width, config.temporal_kernel))
            if level:
                self.add_module(f"up_{level}", nn.Conv2d(width, 4 * channels[level - 1], 1))
        self.norm_out = PixelNorm(channels[0]) if config.decoder_norm == "pixel" else nn.GroupNorm(
            config.norm_groups, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], 3 * config.patch**2, 3, padding=1)

    def forward(self, latents: torch.Tensor, frames: int = 1) -> torch.Tensor:
        x = self.conv_in(latents)
        for level in reversed(range(len(self.config.decoder_channels))):
            for i in range(self.config.layers + 1):
                x = self.get_submodule(f"level_{level}_resnet_{i}")(x, None)
                if self.config.temporal_kernel:
                    x = self.get_submodule(f"level_{level}_temporal_{i}")(x, frames)
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

    def decode(self, latents: torch.Tensor, frames: int = 1) -> SimpleNamespace:
        """Decode clips of F frames, (B * F, c, h, w); return an object with `sample` (B * F, 3, H, W), not clipped."""
        return SimpleNamespace(sample=self.decoder(latents, frames))


class PixelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of every pixel of (M, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class TemporalConvolution(nn.Module):
    """See `models.codecs.temporal.TemporalConvolution`: (B * F, C, h, w) and F -> the same shape."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.norm, self.conv, self.kernel = PixelNorm(width), nn.Linear(kernel * width, width), kernel

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        hidden, places = F.silu(self.norm(x)).unflatten(0, (-1, frames)), torch.arange(frames, device=x.device)
        reach = self.kernel // 2
        near = [hidden[:, (places + step).clamp(0, frames - 1)] for step in range(-reach, reach + 1)]
        return x + self.conv(torch.cat(near, 2).movedim(2, -1)).movedim(-1, 2).flatten(0, 1)


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


def resnet(width: int, groups: int, norm: str = "group") -> ResnetBlock2D:
    """A residual block without a time bias.

    Args:
        norm: kind of its normalisations, see `models.layers.picture_norm`.
    """
    block = ResnetBlock2D(in_channels=width, temb_channels=None, groups=groups, eps=1e-5)
    if norm == "pixel":
        block.norm1, block.norm2 = PixelNorm(width), PixelNorm(width)
    return block
