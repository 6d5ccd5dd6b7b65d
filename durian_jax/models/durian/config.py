"""Sizes of Durian's networks: the same code builds `tiny` and `sd15`. Imports no jax."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from durian_jax.errors import InputError
from durian_jax.models.codecs.config import CODECS, AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.unet.config import UNetConfig

# How references reach the denoiser. "dual": ARNet and PRNet, whose features are keys and values of its spatial
# attention (the paper). "single": one ReferenceNet sees both images on its channels (the paper's ablation).
# "tokens": no ReferenceNet; the denoiser itself carries the references along, as more tokens of every frame.
REFERENCE_MODES = ("dual", "single", "tokens")


@dataclass(frozen=True)
class DurianConfig:
    """The whole model: DNet, ARNet, PRNet (Durian, section 3), keypoint encoder, codec and image encoder.

    Attributes:
        image_size: H = W in pixels.
        max_frames: F, longest clip that the temporal layers know.
        unet: size of DNet and of both ReferenceNets.
        codec: size and kind of the autoencoder.
        image_encoder: size of CLIP, whose embedding of the attribute image DNet and ARNet attend to; None: there
            is none, and cross-attention, where there is such, gets zeros.
        identity_dim: width of the identity embedding (ArcFace: 512) that PRNet attends to, which comes with the
            batch; None: PRNet attends to the image encoder's embedding of the portrait.
        keypoint_patch: side of the pixel patch that the keypoint encoder starts from (1: single pixels).
        keypoint_channels: widths of the keypoint encoder, one for each halving that remains.
        temporal_heads: heads of the temporal self-attention at every level.
        reference_mode: one of `REFERENCE_MODES`.
        mask_channel: whether references are given with their mask on one more channel.
        masked_references: whether references show only what they are there for; False gives them whole.
        portrait_capacity, attribute_capacity: share of a reference's tokens that the denoiser attends to, see
            `models.durian.pruning`: a multiple of 1/8; 1 keeps all. For reference_mode "dual".
        dtype: of activations: "float32" or "bfloat16". Softmax, norms and losses stay float32.
    """

    image_size: int = 128
    max_frames: int = 16
    unet: UNetConfig = UNetConfig()
    codec: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig = CodecConfig()
    image_encoder: ImageEncoderConfig | None = None
    identity_dim: int | None = None
    keypoint_patch: int = 4
    keypoint_channels: tuple[int, ...] = (64,)
    temporal_heads: int = 4
    reference_mode: str = "dual"
    mask_channel: bool = True
    masked_references: bool = True
    portrait_capacity: float = 1.0
    attribute_capacity: float = 1.0
    dtype: str = "float32"

    def __post_init__(self):
        if self.image_size < 1 or self.image_size % self.size_multiple:
            raise InputError(f"image_size={self.image_size} must be a positive multiple of {self.size_multiple}: the "
                             f"codec's downscale {self.codec.downscale} times 2 for each of the U-Net's halvings")
        if any(width % self.temporal_heads for width in self.unet.channels):
            raise InputError(f"temporal_heads={self.temporal_heads} must divide every width of {self.unet.channels}")
        if self.keypoint_patch * 2 ** len(self.keypoint_channels) != self.codec.downscale:
            raise InputError(f"keypoint_patch={self.keypoint_patch} and one halving for each of the "
                             f"{len(self.keypoint_channels)} keypoint_channels must reach the latents' "
                             f"downscale {self.codec.downscale}")
        if self.reference_mode not in REFERENCE_MODES:
            raise InputError(f"unknown reference_mode {self.reference_mode!r}; expected one of "
                             f"{', '.join(REFERENCE_MODES)}")
        for name in ("portrait_capacity", "attribute_capacity"):
            capacity = getattr(self, name)
            if not 0 < capacity <= 1 or capacity * 8 % 1:
                raise InputError(f"{name}: expected a multiple of 1/8, from 0.125 to 1, found {capacity}")
            if capacity != 1 and self.reference_mode != "dual":
                raise InputError(f"{name}={capacity} is for reference_mode='dual', found {self.reference_mode!r}; set "
                                 f"{name} to 1")
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype: expected float32 or bfloat16, found {self.dtype!r}")
        width = self.unet.context_dim
        if self.image_encoder is not None and self.image_encoder.projection != width:
            raise InputError(f"image_encoder.projection={self.image_encoder.projection} must equal unet.context_dim="
                             f"{width}; without cross-attention (None) set image_encoder to None")
        if self.identity_dim is not None and (width is None or self.reference_mode != "dual"):
            raise InputError("identity_dim is for PRNet's cross-attention: it needs unet.context_dim and "
                             "reference_mode='dual'; set it to None")

    @property
    def size_multiple(self) -> int:
        """Picture sizes must be multiples of so many pixels."""
        return self.codec.downscale * 2 ** (len(self.unet.channels) - 1)

    @property
    def latent_size(self) -> int:
        """h = w of the latents."""
        return self.image_size // self.codec.downscale

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the codec's kind is its class, "codec_kind"."""
        kind = next(kind for kind, cls in CODECS.items() if isinstance(self.codec, cls))
        return {**dataclasses.asdict(self), "codec_kind": kind}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DurianConfig":
        """The inverse of `to_dict`.

        Raises:
            InputError: a field that this version does not know.
        """
        values = dict(values)
        kind = values.pop("codec_kind", "small")
        if kind not in CODECS:
            raise InputError(f"unknown codec_kind {kind!r}; expected one of {', '.join(CODECS)}")
        return _build(cls, values, {"unet": UNetConfig, "codec": CODECS[kind], "image_encoder": ImageEncoderConfig})


def _build(cls, values, nested=None):
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{cls.__name__}: unknown fields {unknown}; expected some of {sorted(known)}")
    return cls(**{name: _build(nested[name], value) if nested and name in nested and value is not None
                  else tuple(value) if isinstance(value, list | tuple) else value
                  for name, value in values.items()})
