"""Sizes of the U-Net. Imports no jax."""

from dataclasses import dataclass
from typing import Annotated

from durian_jax.fields import LEVELS, FieldError, Groups, Heads, Layers, Multiplier, Width, check_fields


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

    channels: Annotated[tuple[Width, ...], LEVELS] = (64, 112)
    layers: Layers = 1
    attention: Annotated[tuple[bool, ...], LEVELS] = (True, True)
    heads: Annotated[tuple[Heads, ...], LEVELS] = (1, 2)
    context_dim: Width | None = None
    feedforward_multiplier: Multiplier = 2
    norm_groups: Groups = 8
    positions: bool = True

    def __post_init__(self):
        check_fields(self)
        for name in ("attention", "heads"):
            if len(getattr(self, name)) != len(self.channels):
                raise FieldError(name, f"expected one entry per level of channels ({len(self.channels)}), found "
                                 f"{len(getattr(self, name))}")
        if not any(self.attention):
            raise FieldError("attention", "expected at least one level with attention, through which references "
                             f"enter, found {self.attention}")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % heads or width % self.norm_groups:
                raise FieldError("channels", f"expected multiples of the level's heads and of norm_groups, found "
                                 f"{width} for {heads} heads and norm_groups={self.norm_groups}")
