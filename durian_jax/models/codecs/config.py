"""Sizes of the autoencoders between pixels and latents. Imports no jax."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from durian_jax.errors import shown
from durian_jax.fields import (
    LEVELS,
    OPTIONAL,
    FieldError,
    Groups,
    Layers,
    OneOf,
    Patch,
    Positive,
    Range,
    Width,
    check_fields,
    read_section,
)

LatentChannels = Annotated[int, Range(1, 1024)]

# What a normalisation looks at, see `models.layers.picture_norm`.
NORMS = ("group", "pixel")

# Number of parameters of a residual block, and of a block of AutoencoderTiny.
_RESNET, _TINY_BLOCK = 8, 6


def _check_groups(groups: int, channels: tuple[int, ...]) -> None:
    if any(width % groups for width in channels):
        raise FieldError("norm_groups", f"expected a divisor of all channels {channels}, found {groups}")


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
        decoder_norm: one of `NORMS`: "group" normalises groups of channels in the whole picture, so that a change in
            one place changes all others a little; "pixel" all channels of each place.
        temporal_kernel: number of frames, odd, that each temporal convolution of the decoder sees; 0: there are none,
            and frames are decoded one by one.
    """

    patch: Patch = 4
    encoder_channels: Annotated[tuple[Width, ...], LEVELS] = (32, 64)
    decoder_channels: Annotated[tuple[Width, ...], LEVELS] = (64, 112)
    layers: Layers = 1
    latent_channels: LatentChannels = 16
    norm_groups: Groups = 8
    decoder_norm: Annotated[str, OneOf(NORMS), OPTIONAL] = "group"
    temporal_kernel: Annotated[int, Range(0, 15), OPTIONAL] = 0

    def __post_init__(self):
        check_fields(self)
        if self.temporal_kernel and not self.temporal_kernel % 2:
            raise FieldError("temporal_kernel", f"expected 0 or an odd number, found {self.temporal_kernel}")
        if len(self.encoder_channels) != len(self.decoder_channels):
            raise FieldError("decoder_channels", f"expected {len(self.encoder_channels)} levels like encoder_channels, "
                             f"found {len(self.decoder_channels)}")
        _check_groups(self.norm_groups, (*self.encoder_channels, *self.decoder_channels))

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return self.patch * 2 ** (len(self.encoder_channels) - 1)

    @property
    def least_parameters(self) -> int:
        """See `ModelConfig.least_parameters`."""
        return 2 * _RESNET * self.layers * len(self.encoder_channels)


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

    channels: Annotated[tuple[Width, ...], LEVELS] = (128, 256, 512, 512)
    layers: Layers = 2
    latent_channels: LatentChannels = 4
    norm_groups: Groups = 32
    scaling_factor: Positive = 0.18215
    shift_factor: Annotated[float, Range(-1e6, 1e6), OPTIONAL] = 0.0
    quant_conv: Annotated[bool, OPTIONAL] = True
    temporal_kernel: ClassVar[int] = 0  # frames are decoded one by one

    def __post_init__(self):
        check_fields(self)
        _check_groups(self.norm_groups, self.channels)

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.channels) - 1)

    @property
    def least_parameters(self) -> int:
        """See `ModelConfig.least_parameters`."""
        return 2 * _RESNET * self.layers * len(self.channels)


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

    channels: Width = 64
    encoder_blocks: Annotated[tuple[Layers, ...], LEVELS] = (1, 3, 3, 3)
    decoder_blocks: Annotated[tuple[Layers, ...], LEVELS] = (3, 3, 3, 1)
    latent_channels: LatentChannels = 4
    scaling_factor: Positive = 1.0
    temporal_kernel: ClassVar[int] = 0  # frames are decoded one by one

    def __post_init__(self):
        check_fields(self)
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            raise FieldError("decoder_blocks", f"expected {len(self.encoder_blocks)} resolutions like encoder_blocks, "
                             f"found {len(self.decoder_blocks)}")

    @property
    def downscale(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.encoder_blocks) - 1)

    @property
    def least_parameters(self) -> int:
        """See `ModelConfig.least_parameters`."""
        return _TINY_BLOCK * (sum(self.encoder_blocks) + sum(self.decoder_blocks))


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
    of_decoder = ("decoder_norm", "temporal_kernel")
    return {name: value for name, value in asdict(config).items()
            if name not in of_decoder and (name not in new or value != new[name])}


def codec_from_dict(values: dict[str, Any]) -> CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig:
    """Build a codec's sizes from plain values of a model: take `codec_kind` and `codec` out of them.

    Raises:
        FieldError: an unknown kind or field, no sizes, or sizes out of range.
    """
    kind = values.pop("codec_kind", "small")
    if not isinstance(kind, str) or kind not in CODECS:
        raise FieldError("codec_kind", f"expected one of {', '.join(CODECS)}, found {shown(kind)}")
    return read_section(CODECS[kind], values, "codec")
