"""Sizes of every network, as frozen dataclasses: the same code builds `tiny` and `sd15`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from durian_jax.errors import InputError


@dataclass(frozen=True)
class CodecConfig:
    """Between pixels and latents.

    Attributes:
        patch: side of the pixel patch that becomes one token of the outer level (space to depth).
        encoder_channels, decoder_channels: width of each level, outer to inner; every further level halves
            the resolution. The encoder runs on every training image and may be the narrower one.
        layers: residual blocks a level in the encoder; the decoder has one more.
        latent_channels: c, channels of a latent.
        norm_groups: groups of every group normalisation.
    """

    patch: int = 4
    encoder_channels: tuple[int, ...] = (32, 64)
    decoder_channels: tuple[int, ...] = (64, 112)
    layers: int = 1
    latent_channels: int = 16
    norm_groups: int = 8

    def __post_init__(self):
        if len(self.encoder_channels) != len(self.decoder_channels):
            raise InputError(f"CodecConfig: encoder_channels and decoder_channels need the same number of levels, "
                             f"got {len(self.encoder_channels)} and {len(self.decoder_channels)}")

    @property
    def downscale(self) -> int:
        """Pixels a latent, along one side."""
        return self.patch * 2 ** (len(self.encoder_channels) - 1)


@dataclass(frozen=True)
class UNetConfig:
    """A U-Net of Stable Diffusion 1.5's shape (diffusers' UNet2DConditionModel) in any size.

    Attributes:
        channels: width of each level, outer to inner.
        layers: residual blocks a level on the way down; one more on the way up.
        attention: whether each level has attention (Stable Diffusion 1.5: all but the innermost).
        heads: attention heads of each level.
        context_dim: width of the image embedding for cross-attention; None builds no cross-attention.
        feedforward_multiplier: width of the gated feed-forward over the level's (Stable Diffusion 1.5: 4).
        norm_groups: groups of every group normalisation.
        positions: give spatial attention a two-dimensional position code in queries, keys and values, and
            the network one at its entrance; projections of queries and keys start near the identity, so
            that attention starts local. Not in Stable Diffusion; for small models that start from nothing.
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
                f"UNetConfig: channels, attention and heads need one entry a level, got "
                f"{len(self.channels)}, {len(self.attention)} and {len(self.heads)}")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % heads or width % self.norm_groups:
                raise InputError(f"UNetConfig: width {width} must be a multiple of its {heads} heads "
                                 f"and of norm_groups={self.norm_groups}")


@dataclass(frozen=True)
class DurianConfig:
    """The whole model: DNet, ARNet, PRNet (Durian, section 3), keypoint encoder and codec.

    Attributes:
        image_size: H = W in pixels.
        max_frames: F, longest clip that the temporal layers know.
        unet: size of DNet and of both ReferenceNets.
        codec: size of the autoencoder.
        keypoint_patch: side of the pixel patch that the keypoint encoder starts from (1: single pixels).
        keypoint_channels: widths of the keypoint encoder, one for each halving that remains.
        temporal_heads: heads of the temporal self-attention at every level.
        dtype: of activations: "float32" or "bfloat16". Parameters, softmax, norms stay float32.
    """

    image_size: int = 128
    max_frames: int = 16
    unet: UNetConfig = UNetConfig()
    codec: CodecConfig = CodecConfig()
    keypoint_patch: int = 4
    keypoint_channels: tuple[int, ...] = (64,)
    temporal_heads: int = 4
    dtype: str = "float32"

    def __post_init__(self):
        if self.image_size % (self.codec.downscale * 2 ** (len(self.unet.channels) - 1)):
            raise InputError(f"image_size={self.image_size} must be a multiple of the codec's downscale "
                             f"{self.codec.downscale} times 2 for each of the U-Net's halvings")
        if any(width % self.temporal_heads for width in self.unet.channels):
            raise InputError(f"temporal_heads={self.temporal_heads} must divide every width of {self.unet.channels}")
        if self.keypoint_patch * 2 ** len(self.keypoint_channels) != self.codec.downscale:
            raise InputError(f"keypoint_patch={self.keypoint_patch} and one halving for each of the "
                             f"{len(self.keypoint_channels)} keypoint_channels must reach the latents' "
                             f"downscale {self.codec.downscale}")

    @property
    def latent_size(self) -> int:
        """h = w of the latents."""
        return self.image_size // self.codec.downscale

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DurianConfig":
        """The inverse of `to_dict`.

        Raises:
            InputError: a field that this version does not know.
        """
        return _build(cls, values)


_NESTED = {"unet": UNetConfig, "codec": CodecConfig}


def _build(cls, values):
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{cls.__name__}: unknown fields {unknown}; expected some of {sorted(known)}")
    return cls(**{name: _build(_NESTED[name], value) if name in _NESTED
                  else tuple(value) if isinstance(value, list | tuple) else value
                  for name, value in values.items()})
