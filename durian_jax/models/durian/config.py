"""Sizes of Durian's networks: the same code builds `tiny` and `sd15`. Imports no jax."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from durian_jax.errors import InputError
from durian_jax.faces.topology import K
from durian_jax.models.batch import Field, Spec
from durian_jax.models.codecs.config import (
    AutoencoderKLConfig,
    AutoencoderTinyConfig,
    CodecConfig,
    codec_encoder_fields,
    codec_from_dict,
    codec_kind,
)
from durian_jax.models.family import ModelConfig, from_fields
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.unet.config import UNetConfig

# How references reach the denoiser. "dual": ARNet and PRNet, whose features are keys and values of its spatial
# attention (the paper). "single": one ReferenceNet sees both images on its channels (the paper's ablation).
# "tokens": no ReferenceNet; the denoiser itself carries the references along, as more tokens of every frame.
REFERENCE_MODES = ("dual", "single", "tokens")


@dataclass(frozen=True)
class DurianConfig(ModelConfig):
    """The whole model: DNet, ARNet, PRNet (Durian, section 3), keypoint encoder, codec and image encoder.

    Attributes:
        image_size: H = W in pixels.
        max_frames: F, number of frames of the longest clip that the temporal layers take.
        unet: sizes of DNet and of both ReferenceNets.
        codec: sizes and kind of the autoencoder.
        image_encoder: sizes of CLIP, whose embedding of the attribute image DNet and ARNet attend to; None: no image
            encoder; cross-attention, if the U-Nets have it, attends to zeros.
        identity_dim: width of the identity embedding (ArcFace: 512) that PRNet attends to, which comes with the
            batch; None: PRNet attends to the image encoder's embedding of the portrait.
        keypoint_patch: side of the pixel patch that the keypoint encoder starts from (1: single pixels).
        keypoint_channels: widths of the keypoint encoder, one for each halving that remains.
        temporal_heads: heads of the temporal self-attention at every level.
        reference_mode: one of `REFERENCE_MODES`.
        mask_channel: whether references carry their mask as one more channel.
        masked_references: whether reference images are masked; False gives them whole.
        portrait_capacity, attribute_capacity: share of a reference's tokens that the denoiser attends to, see
            `attention.kept_tokens`: a multiple of 1/8; 1 keeps all. For reference_mode "dual".
        dtype: of activations: "float32" or "bfloat16". Softmax, norms and losses stay float32.
    """

    family: ClassVar[str] = "durian"
    encoders: ClassVar[tuple[str, ...]] = ("codec/", "image_encoder/")
    guidance: ClassVar[tuple[str, ...]] = ("references",)

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
        """Picture sizes must be multiples of this number of pixels."""
        return self.codec.downscale * 2 ** (len(self.unet.channels) - 1)

    @property
    def fixed_size(self) -> bool:
        """Whether the model makes pictures of `image_size` only: its position code is for one size."""
        return self.unet.positions

    def batch_spec(self, encoded: bool = False) -> Spec:
        """Fields of a batch (design, "Shapes and names"); see `ModelConfig.batch_spec`.

        B clips, F frames, A attributes. The loss weighs the region of `frame_masks`: where the frames show the
        attributes.
        """
        fields = {
            "keypoints": Field(("B", "F", K, 3), "value", "clip"),
            "attribute_valid": Field(("B", "A"), "value", "clip"),
            "attribute_weights": Field(("B", "A"), "value", "clip", optional=True),
        }
        if encoded:
            side, c = self.latent_size, self.codec.latent_channels
            fields |= {
                "frame_latents": Field(("B", "F", side, side, c), "latent", "target"),
                "frame_masks": Field(("B", "F", side, side, 1), "share", "target"),
                "portrait_latents": Field(("B", side, side, c), "latent", "reference"),
                "portrait_mask": Field(("B", side, side, 1), "share", "reference"),
                "attribute_latents": Field(("B", "A", side, side, c), "latent", "reference"),
                "attribute_masks": Field(("B", "A", side, side, 1), "share", "reference"),
            }
            width = self.image_encoder.projection if self.image_encoder is not None else None
            portrait_width = width if self.identity_dim is None else self.identity_dim
            if portrait_width is not None:
                fields["portrait_embedding"] = Field(("B", portrait_width), "latent", "reference")
            if width is not None:
                fields["attribute_embeddings"] = Field(("B", "A", width), "latent", "reference")
            return fields
        s = self.image_size
        fields |= {
            "frames": Field(("B", "F", s, s, 3), "picture", "target"),
            "frame_masks": Field(("B", "F", s, s, 1), "mask", "target"),
            "portrait": Field(("B", s, s, 3), "picture", "reference"),
            "portrait_mask": Field(("B", s, s, 1), "mask", "reference"),
            "attributes": Field(("B", "A", s, s, 3), "picture", "reference"),
            "attribute_masks": Field(("B", "A", s, s, 1), "mask", "reference"),
        }
        if self.identity_dim is not None:
            fields["identity"] = Field(("B", self.identity_dim), "value", "reference")
        return fields

    def encoder_fields(self) -> dict[str, Any]:
        """Fields that decide how samples are encoded."""
        fields = {**self.to_dict(), "codec": codec_encoder_fields(self.codec)}
        return {name: fields[name] for name in ("image_size", "codec_kind", "codec", "image_encoder", "identity_dim",
                                                "masked_references")}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the family and the codec's kind."""
        return {"family": self.family, **dataclasses.asdict(self), "codec_kind": codec_kind(self.codec)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DurianConfig":
        """The inverse of `to_dict`, without "family".

        Raises:
            InputError: an unknown field.
        """
        values = dict(values)
        codec = codec_from_dict(values.pop("codec_kind", "small"), values.pop("codec", {}))
        unet, image_encoder = values.pop("unet", {}), values.pop("image_encoder", None)
        return from_fields(cls, {
            **values, "codec": codec, "unet": from_fields(UNetConfig, unet),
            "image_encoder": None if image_encoder is None else from_fields(ImageEncoderConfig, image_encoder)})
