"""Sizes of the autoencoders between pixels and latents. Imports no jax."""

from dataclasses import asdict, dataclass
from typing import Any

from durian_jax.errors import InputError
from durian_jax.models.family import from_fields


@dataclass(frozen=True)
class CodecConfig:
    """The small autoencoder that this project trains from nothing (`models.codecs.small`).

    Attributes:
        patch: side of the pixel patch that becomes one token of the outer level (space to depth).
        encoder_channels, decoder_channels: width of each level, outer to inner; every further level halves the
            resolution. The encoder runs on every training image and may be narrower than the decoder.
        layers: residual blocks per level of the encoder; the decoder has one more.
        latent_channels: c, channels of a latent.
        norm_groups: number of groups of every group normalisation.
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
        sizes = {**vars(self), "encoder_channels": min(self.encoder_channels, default=0),
                 "decoder_channels": min(self.decoder_channels, default=0)}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"CodecConfig.{name}: expected at least 1, found {getattr(self, name)}")
        if any(width % self.norm_groups for width in (*self.encoder_channels, *self.decoder_channels)):
            raise InputError(f"CodecConfig.norm_groups: expected a divisor of all channels {self.encoder_channels} and "
                             f"{self.decoder_channels}, found {self.norm_groups}")

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return self.patch * 2 ** (len(self.encoder_channels) - 1)


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """diffusers' AutoencoderKL: Stable Diffusion's autoencoder (`models.codecs.autoencoder_kl`).

    A latent is (mean - shift_factor) * scaling_factor. Stable Diffusion 3's autoencoder has 16 channels, the factors
    1.5305 and 0.0609, and no quant_conv.

    Attributes:
        channels: width of each level, outer to inner; every further level halves the resolution.
        layers: residual blocks per level of the encoder; the decoder has one more.
        latent_channels: c, channels of a latent.
        norm_groups: number of groups of every group normalisation.
        scaling_factor: multiplies the latents, so that they have about unit variance.
        shift_factor: subtracted from the means before, so that the latents have about zero mean.
        quant_conv: whether a 1 x 1 convolution follows the encoder and another one precedes the decoder.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    latent_channels: int = 4
    norm_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    quant_conv: bool = True

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class AutoencoderTinyConfig:
    """diffusers' AutoencoderTiny: a small stand-in with the same latents (`models.codecs.autoencoder_tiny`).

    Attributes:
        channels: width of every layer.
        encoder_blocks, decoder_blocks: residual blocks of each resolution, from the pixels to the latents and back; the
            resolution halves or doubles each time.
        latent_channels: c, channels of a latent.
        scaling_factor: multiplies the latents.
    """

    channels: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_channels: int = 4
    scaling_factor: float = 1.0

    def __post_init__(self):
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            raise InputError(f"AutoencoderTinyConfig: encoder_blocks and decoder_blocks need the same number of "
                             f"resolutions, got {len(self.encoder_blocks)} and {len(self.decoder_blocks)}")

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.encoder_blocks) - 1)


# codec_kind -> its sizes.
CODECS = {"small": CodecConfig, "autoencoder_kl": AutoencoderKLConfig, "autoencoder_tiny": AutoencoderTinyConfig}


def codec_kind(config: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig) -> str:
    """The key of `CODECS` for a codec's sizes."""
    return next(kind for kind, cls in CODECS.items() if isinstance(config, cls))


def codec_encoder_fields(config: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig) -> dict[str, Any]:
    """The fields that decide how pictures are encoded, as encoded samples store them.

    Fields that version 0.1 did not have are left out where they change nothing, so that its samples still fit.
    """
    new = {"shift_factor": 0.0, "quant_conv": True}
    return {name: value for name, value in asdict(config).items() if name not in new or value != new[name]}


def codec_from_dict(kind: str, values: dict[str, Any]) -> CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig:
    """Build a codec's sizes from plain values.

    Raises:
        InputError: an unknown kind or field.
    """
    if kind not in CODECS:
        raise InputError(f"unknown codec_kind {kind!r}; expected one of {', '.join(CODECS)}")
    return from_fields(CODECS[kind], values)
