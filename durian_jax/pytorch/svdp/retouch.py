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
    SHIFT_SCALE,
    SMALLEST_SHARE,
    STEM_PATCH,
    TAKEN_SHARE,
    UNKNOWN_SHARE,
    MMDiTConfig,
    shift_layers,
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


def shifted(pictures: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Pictures (M, C, H, W) with pixels from elsewhere, (M, 2, H, W) in pixels; see `models.mmdit.retouch.shifted`."""
    height, width = pictures.shape[2:]
    x = torch.arange(width, device=shifts.device) + shifts[:, 0]
    y = torch.arange(height, device=shifts.device)[:, None] + shifts[:, 1]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=True)


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
        self.shifting = shift_layers(config.retouch_layers)
        self.conv_in = nn.Conv2d(6 * self.patch**2, width, 3, padding=1)
        self.resnets = nn.ModuleList(resnet(width, NORM_GROUPS) for _ in range(config.retouch_layers))
        self.norm_shift = nn.GroupNorm(NORM_GROUPS, width, eps=1e-5)
        self.conv_shift = nn.Conv2d(width, 2 * pictures, 3, padding=1)
        self.conv_shifted = nn.Conv2d(3 * pictures * self.patch**2, width, 1)
        self.norm_out = nn.GroupNorm(NORM_GROUPS, width, eps=1e-5)
        self.conv_out = nn.Conv2d(width, self.patch**2 * (3 + pictures), 3, padding=1)

    def forward(self, frames: torch.Tensor, pixels: Pixels) -> torch.Tensor:
        (b, f, g), dtype = pixels.pictures.shape[:3], pixels.features.dtype
        beside = torch.cat([frames, pixels.pictures[:, :, 0].to(frames.dtype)], 2)
        x = self.conv_in(space_to_depth(beside.flatten(0, 1), self.patch).to(dtype)) + pixels.features.flatten(0, 1)
        for block in self.resnets[:self.shifting]:
            x = block(x, None)

        shifts = SHIFT_SCALE * F.interpolate(self.conv_shift(F.silu(self.norm_shift(x))).float(), frames.shape[3:],
                                             mode="bilinear")
        layered = torch.cat([pixels.pictures, pixels.masks], 3).float()
        layered = shifted(layered.flatten(0, 2), shifts.unflatten(1, (g, 2)).flatten(0, 1)).unflatten(0, (b, f, g))
        masks = layered[:, :, :, 3]
        pictures = layered[:, :, :, :3] / layered[:, :, :, 3:].clamp(min=SMALLEST_SHARE)
        x = x + self.conv_shifted(space_to_depth(pictures.flatten(2, 3).flatten(0, 1), self.patch).to(dtype))

        for block in self.resnets[self.shifting:]:
            x = block(x, None)
        x = depth_to_space(self.conv_out(F.silu(self.norm_out(x))), self.patch).unflatten(0, frames.shape[:2]).float()
        correction, logits = x[:, :, :3], x[:, :, 3:]
        logits = CHOICE_SCALE * logits + (TAKEN_SHARE * masks + UNKNOWN_SHARE).log()
        shares = torch.cat([torch.zeros_like(logits[:, :, :1]), logits], 2).softmax(2)[:, :, 1:, None]
        return frames + correction + (shares * (pictures - frames[:, :, None])).sum(2)
