"""The keypoint encoder.

Axis letters: M images, H x W pixels, h x w latents, C channels.
"""

import torch
import torch.nn.functional as F
from torch import nn

from durian_jax.pytorch.small_codec import space_to_depth


class KeypointEncoder(nn.Module):
    """(M, 3, H, W) drawn keypoints in [0, 1] -> (M, channels, h, w) (`models.durian.keypoint_encoder`)."""

    def __init__(self, channels: int, widths: tuple[int, ...], patch: int):
        super().__init__()
        self.patch = patch
        self.conv_in = nn.Conv2d(3 * patch**2, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width_in, width, 3, stride=2, padding=1)
                                    for width_in, width in zip((widths[0], *widths), widths, strict=False))
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.conv_in(space_to_depth(images, self.patch)))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)
