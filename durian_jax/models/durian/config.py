"""Sizes of Durian's networks: the same code builds `tiny` and `sd15`. Imports no jax."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from durian_jax.errors import shown
from durian_jax.faces.topology import K
from durian_jax.fields import (
    OPTIONAL,
    FieldError,
    FrameCount,
    Heads,
    Items,
    OneOf,
    Patch,
    Pixels,
    Share,
    Width,
    check_fields,
    check_names,
    read_fields,
    read_section,
)
from durian_jax.models.batch import Field, Spec
from durian_jax.models.codecs.config import (
    AutoencoderKLConfig,
    AutoencoderTinyConfig,
    CodecConfig,
    codec_encoder_fields,
    codec_from_dict,
    codec_kind,
)
from durian_jax.models.family import DTYPES, ModelConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.unet.config import UNetConfig

# How references reach the denoiser. "dual": ARNet and PRNet, whose features are keys and values of its spatial
# attention (the paper). "single": one ReferenceNet sees both images on its channels (the paper's ablation).
# "tokens": no ReferenceNet; the denoiser itself carries the references along, as more tokens of every frame.
REFERENCE_MODES = ("dual", "single", "tokens")

_CAPACITIES = tuple(eighths / 8 for eighths in range(1, 9))


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

    image_size: Pixels = 128
    max_frames: FrameCount = 16
    unet: UNetConfig = UNetConfig()
    codec: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig = CodecConfig()
    image_encoder: ImageEncoderConfig | None = None
    identity_dim: Width | None = None
    keypoint_patch: Patch = 4
    keypoint_channels: Annotated[tuple[Width, ...], Items(1, 8)] = (64,)
    temporal_heads: Heads = 4
    reference_mode: Annotated[str, OneOf(REFERENCE_MODES)] = "dual"
    mask_channel: bool = True
    masked_references: bool = True
    portrait_capacity: Annotated[Share, OPTIONAL] = 1.0
    attribute_capacity: Annotated[Share, OPTIONAL] = 1.0
    dtype: Annotated[str, OneOf(DTYPES)] = "float32"

    def __post_init__(self):
        for name in ("portrait_capacity", "attribute_capacity"):
            capacity = getattr(self, name)
            if capacity not in _CAPACITIES:
                raise FieldError(name, f"expected a multiple of 1/8, from 0.125 to 1, found {shown(capacity)}")
            if capacity != 1 and self.reference_mode != "dual":
                raise FieldError(name, f"expected 1 for reference_mode={self.reference_mode!r}, found {capacity}")
        check_fields(self)
        if self.image_size % self.size_multiple:
            raise FieldError("image_size", f"expected a multiple of {self.size_multiple}, the codec's downscale "
                             f"{self.codec.downscale} times 2 for each of the U-Net's halvings, found "
                             f"{self.image_size}")
        if any(width % self.temporal_heads for width in self.unet.channels):
            raise FieldError("temporal_heads", f"expected a divisor of every width of {self.unet.channels}, found "
                             f"{self.temporal_heads}")
        if self.keypoint_patch * 2 ** len(self.keypoint_channels) != self.codec.downscale:
            raise FieldError("keypoint_patch", f"expected a side that reaches the latents' downscale "
                             f"{self.codec.downscale} with one halving for each of the "
                             f"{len(self.keypoint_channels)} keypoint_channels, found {self.keypoint_patch}")
        width = self.unet.context_dim
        if self.image_encoder is not None and self.image_encoder.projection != width:
            raise FieldError("image_encoder.projection", f"expected unet.context_dim={width}, found "
                             f"{self.image_encoder.projection}; without cross-attention (None) set image_encoder to "
                             "None")
        if self.identity_dim is not None and (width is None or self.reference_mode != "dual"):
            raise FieldError("identity_dim", "expected None without PRNet's cross-attention, which needs "
                             f"unet.context_dim and reference_mode='dual', found {self.identity_dim}")

    @property
    def size_multiple(self) -> int:
        """Picture sizes must be multiples of this number of pixels."""
        return self.codec.downscale * 2 ** (len(self.unet.channels) - 1)

    @property
    def fixed_size(self) -> bool:
        """Whether the model makes pictures of `image_size` only: its position code is for one size."""
        return self.unet.positions

    @property
    def least_parameters(self) -> int:
        """See `ModelConfig.least_parameters`."""
        resnet, transformer, motion, encoder_layer = 10, 16, 24, 12
        networks = {"dual": 3, "single": 2, "tokens": 1}[self.reference_mode]
        # Every network's way down, and the denoiser's way up and motion modules on both ways.
        levels = sum((resnet + transformer * has) * (networks + 1) + 2 * motion for has in self.unet.attention)
        encoder = 0 if self.image_encoder is None else encoder_layer * self.image_encoder.layers
        return self.unet.layers * levels + self.codec.least_parameters + encoder

    def batch_spec(self, encoded: bool = False) -> Spec:
        """Fields of a batch (design, "Shapes and names"); see `ModelConfig.batch_spec`.

        B clips, F frames, A attributes. The loss weighs the region of `frame_masks`: where the frames show the
        attributes.
        """
        fields = {
            "keypoints": Field(("B", "F", K, 3), "value", "clip"),
            "attribute_valid": Field(("B", "A"), "value", "clip"),
            "attribute_weights": Field(("B", "F", "A"), "value", "clip", optional=True),
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
            FieldError: see `ModelConfig.from_dict`.
        """
        check_names(values, [*(field.name for field in dataclasses.fields(cls)), "codec_kind"])
        values = dict(values)
        parts = {"codec": codec_from_dict(values), "unet": read_section(UNetConfig, values, "unet")}
        if values.get("image_encoder") is not None:
            parts["image_encoder"] = read_section(ImageEncoderConfig, values, "image_encoder")
        return read_fields(cls, {**values, **parts})
