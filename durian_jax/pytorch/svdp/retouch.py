"""Pixels under the noisy frames; see `models.mmdit.retouch`.

B clips, F frames, G pictures, H x W pixels, h x w latents, C channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from durian_jax.models.mmdit.config import (
    CHOICE_SCALE,
    NORM_GROUPS,
    STEM_PATCH,
    TAKEN_SHARE,
    UNKNOWN_SHARE,
    MMDiTConfig,
)
from durian_jax.pytorch.small_codec import depth_to_space, resnet, space_to_depth


class PictureStem(nn.Module):
    """Pictures (B, F, C, H, W) in [-1, 1] -> features of their pixels, fine and coarse ones.

    Args:
        config: of the transformer.
        downscale: pixels per latent, in each direction.
        channels: C.
    """

    def __init__(self, config: MMDiTConfig, downscale: int, channels: int):
        super().__init__()
        width, self.patch = config.stem_width, min(STEM_PATCH, downscale)
        self.rest = downscale // self.patch
        self.conv_in = nn.Conv2d(channels * self.patch**2, width, 3, padding=1)
        self.resnet = resnet(width, NORM_GROUPS)
        self.norm_out = nn.GroupNorm(NORM_GROUPS, width, eps=1e-5)
        self.conv_out = nn.Conv2d(width * self.rest**2, 2 * width, 1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.resnet(self.conv_in(space_to_depth(pictures.flatten(0, 1), self.patch)), None)
        fine = F.silu(self.norm_out(x))
        coarse = self.conv_out(space_to_depth(fine, self.rest))
        return fine.unflatten(0, pictures.shape[:2]), coarse.unflatten(0, pictures.shape[:2])


@dataclass
class Pixels:
    """What lies under the frames, at their size; see `models.mmdit.retouch.Pixels`.

    Attributes:
        pictures: (B, F, G, 3, H, W) in [-1, 1].
        masks: (B, F, G, 1, H, W).
        features: (B, F, stem_width, H / p, W / p), the fine ones of `PictureStem`.
    """

    pictures: torch.Tensor
    masks: torch.Tensor
    features: torch.Tensor


class Retouch(nn.Module):
    """Decoded frames (B, F, 3, H, W) -> frames.

    Args:
        config: of the transformer.
        downscale: pixels per latent, in each direction.
        pictures: G.
    """

    def __init__(self, config: MMDiTConfig, downscale: int, pictures: int):
        super().__init__()
        width, self.patch = config.stem_width, min(STEM_PATCH, downscale)
        self.conv_in = nn.Conv2d(6 * self.patch**2, width, 3, padding=1)
        self.resnets = nn.ModuleList(resnet(width, NORM_GROUPS) for _ in range(config.retouch_layers))
        self.norm_out = nn.GroupNorm(NORM_GROUPS, width, eps=1e-5)
        self.conv_out = nn.Conv2d(width, self.patch**2 * (3 + pictures), 3, padding=1)

    def forward(self, frames: torch.Tensor, pixels: Pixels) -> torch.Tensor:
        known, dtype = torch.cat([frames, pixels.pictures[:, :, 0].to(frames.dtype)], 2), pixels.features.dtype
        x = self.conv_in(space_to_depth(known.flatten(0, 1), self.patch).to(dtype)) + pixels.features.flatten(0, 1)
        for block in self.resnets:
            x = block(x, None)
        x = depth_to_space(self.conv_out(F.silu(self.norm_out(x))), self.patch).unflatten(0, frames.shape[:2]).float()
        correction, logits = x[:, :, :3], x[:, :, 3:]
        logits = CHOICE_SCALE * logits + (TAKEN_SHARE * pixels.masks[:, :, :, 0].float() + UNKNOWN_SHARE).log()
        shares = torch.cat([torch.zeros_like(logits[:, :, :1]), logits], 2).softmax(2)[:, :, 1:, None]
        return frames + correction + (shares * (pixels.pictures.float() - frames[:, :, None])).sum(2)
