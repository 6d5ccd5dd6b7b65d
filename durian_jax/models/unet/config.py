"""Sizes of the U-Net. Imports no jax."""

from dataclasses import dataclass

from durian_jax.errors import InputError


@dataclass(frozen=True)
class UNetConfig:
    """A U-Net of Stable Diffusion 1.5's shape (diffusers' UNet2DConditionModel) in any size.

    Attributes:
        channels: width of each level, outer to inner.
        layers: residual blocks per level on the way down; one more on the way up.
        attention: whether each level has attention (Stable Diffusion 1.5: all but the innermost).
        heads: attention heads of each level.
        context_dim: width of the image embedding for cross-attention; None builds no cross-attention.
        feedforward_multiplier: width of the gated feed-forward, relative to the level's (Stable Diffusion 1.5: 4).
        norm_groups: number of groups of every group normalisation.
        positions: add a two-dimensional position code to queries, keys and values of spatial attention, and to the
            first features; projections of queries and keys start near the identity, so that attention starts local.
            Not in Stable Diffusion; for small models that start from nothing.
    """

    channels: tuple[int, ...] = (64, 112)
    layers: int = 1
    attention: tuple[bool, ...] = (True, True)
    heads: tuple[int, ...] = (1, 2)
    context_dim: int | None = None
    feedforward_multiplier: int = 2
    norm_groups: int = 8
    positions: bool = True

    def __post_init__(self):
        if not len(self.channels) == len(self.attention) == len(self.heads):
            raise InputError(
                f"UNetConfig: channels, attention and heads need one entry per level, got "
                f"{len(self.channels)}, {len(self.attention)} and {len(self.heads)}")
        if not any(self.attention):
            raise InputError("UNetConfig: at least one level needs attention, through which references enter")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % heads or width % self.norm_groups:
                raise InputError(f"UNetConfig: width {width} must be a multiple of its {heads} heads "
                                 f"and of norm_groups={self.norm_groups}")
