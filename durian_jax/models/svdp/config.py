"""Sizes of the SVDP model: the same code builds `tiny` and `sd35m`. Imports no jax."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from durian_jax.fields import (
    FieldError,
    FrameCount,
    OneOf,
    Pixels,
    Range,
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
    codec_from_dict,
    codec_kind,
)
from durian_jax.models.family import DTYPES, ModelConfig
from durian_jax.models.mmdit.config import STEM_PATCH, MMDiTConfig

# How conditions meet the noisy frames. "joint": all tokens of a frame attend to each other (the paper). "one_way":
# conditions see only themselves, without noise, so that their keys are computed once per video or segment.
MODES = ("joint", "one_way")
# References on the driver's face, for models with `aligned_pictures`.
MOVED = ("moved_source", "moved_attributes")
# Frame rates that go together with a model's: more than half of it and less than twice as many.
_RATES = (0.6, 1.7)

_Capacity = Annotated[float, Range(0, 1, open=True)]


def rate_fits(fps: float, model_fps: float) -> bool:
    """Whether motion at `fps` frames per second looks like motion at a model's rate."""
    return _RATES[0] <= fps / model_fps <= _RATES[1]


@dataclass(frozen=True)
class SVDPConfig(ModelConfig):
    """The whole model: transformer and codec (SVDP, arXiv 2509.17476, section 3).

    Attributes:
        image_size: H = W in pixels.
        max_frames: F, largest number of frames of a segment.
        history: T, number of earlier frames that a segment continues.
        codec: sizes of the autoencoder.
        mmdit: sizes of the transformer.
        mode: one of `MODES`.
        driving_capacity: share of the tokens that a driving frame keeps, those that show its regions first.
        attribute_capacity: the same for an attribute picture.
        aligned_pictures: four pictures lie under every noisy frame, place by place, and the prediction may take over
            their latents (ours): the source as it is, source and attributes turned into the driver's head pose, with
            its gaze and mouth, and the driver's regions, moved onto the person's face. What stands still or moves
            rigidly need not pass through attention.
        fps: frames per second of the videos that it makes and of the clips of the stages with video attention.
        dtype: of activations: "float32" or "bfloat16".
    """

    family: ClassVar[str] = "svdp"
    guidance: ClassVar[tuple[str, ...]] = ("source", "driving", "history")
    image_size: Pixels = 128
    max_frames: FrameCount = 16
    history: FrameCount = 3
    codec: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig = CodecConfig()
    mmdit: MMDiTConfig = MMDiTConfig()
    mode: Annotated[str, OneOf(MODES)] = "one_way"
    driving_capacity: _Capacity = 0.25
    attribute_capacity: _Capacity = 1.0
    aligned_pictures: bool = False
    fps: Annotated[float, Range(0, 1000, open=True)] = 25.0
    dtype: Annotated[str, OneOf(DTYPES)] = "float32"
    identity_dim: None = None  # this family uses no identity embedding

    def __post_init__(self):
        check_fields(self)
        if self.image_size % self.size_multiple:
            raise FieldError("image_size", f"expected a multiple of {self.size_multiple}, found {self.image_size}")
        most = (self.max_frames + 1) // 2
        if self.history > most:
            raise FieldError("history", f"expected 1 to {most} frames, half of a segment of max_frames="
                             f"{self.max_frames}, found {self.history}: history comes from the segment before, which "
                             "may be a short one")
        if self.has_stem and self.codec.downscale % min(STEM_PATCH, self.codec.downscale):
            raise FieldError("mmdit.stem_width", f"expected 0, or a codec whose latents are at most {STEM_PATCH} "
                             f"pixels wide or a multiple of it, found {self.mmdit.stem_width} and "
                             f"{self.codec.downscale} pixels")
        side = self.latent_size // self.mmdit.patch
        if self.mmdit.positions == "canvas" and 3 * side > self.mmdit.canvas_size:
            raise FieldError("mmdit.canvas_size", f"expected at least {3 * side}, three frames side by side, found "
                             f"{self.mmdit.canvas_size}")

    @property
    def size_multiple(self) -> int:
        """Picture sizes must be multiples of this number of pixels."""
        return self.codec.downscale * self.mmdit.patch

    @property
    def fixed_size(self) -> bool:
        """Whether the model makes pictures of `image_size` only."""
        return self.mmdit.positions == "rotary"

    @property
    def aligned_count(self) -> int:
        """Number of pictures under every noisy frame."""
        return (2 + len(MOVED)) * self.aligned_pictures

    @property
    def has_stem(self) -> bool:
        """Whether the transformer also reads pixels of the pictures under the noisy frames."""
        return self.aligned_pictures and self.mmdit.stem_width > 0

    @property
    def retouches(self) -> bool:
        """Whether decoded frames are retouched by the pictures under them."""
        return self.has_stem and self.mmdit.retouch_layers > 0

    @property
    def least_parameters(self) -> int:
        """See `ModelConfig.least_parameters`."""
        block, resnet = 28, 8
        retouch = resnet * self.mmdit.retouch_layers if self.retouches else 0
        return block * self.mmdit.layers + retouch + self.codec.least_parameters

    def batch_spec(self, encoded: bool = False) -> Spec:
        """Fields of a batch (design, "Shapes and names"); see `ModelConfig.batch_spec`.

        B clips, F frames, T history frames, A attributes. The loss weighs the region of `frame_masks`: the frames' own
        eyes, nose and mouth, and where they show transferred attributes. The driver's regions in history frames let a
        loss make history by the model itself. `MOVED` references are known where their masks
        are 1.
        """
        fields = {
            "attribute_valid": Field(("B", "A"), "value", "clip"),
            "attribute_weights": Field(("B", "F", "A"), "value", "clip", optional=True),
            "history_valid": Field(("B",), "value", "clip"),
        }
        side, c, s = self.latent_size, self.codec.latent_channels, self.image_size
        for name in MOVED if self.aligned_pictures else ():
            for prefix, axis, role in (("", "F", "clip"), ("history_", "T", "target")):
                if encoded:
                    fields[f"{prefix}{name}_latents"] = Field(("B", axis, side, side, c), "latent", role)
                else:
                    fields[f"{prefix}{name}"] = Field(("B", axis, s, s, 3), "picture", role)
                fields[f"{prefix}{name}_masks"] = Field(
                    ("B", axis, *[side if encoded else s] * 2, 1), "share" if encoded else "mask", role)
        history_latents = Field(("B", "T", side, side, c), "latent", "clip", optional=not encoded)
        if encoded:
            return fields | {
                "frame_latents": Field(("B", "F", side, side, c), "latent", "target"),
                "frame_masks": Field(("B", "F", side, side, 1), "share", "target"),
                "portrait_latents": Field(("B", side, side, c), "latent", "reference"),
                "portrait_mask": Field(("B", side, side, 1), "share", "reference"),
                "attribute_latents": Field(("B", "A", side, side, c), "latent", "reference"),
                "attribute_masks": Field(("B", "A", side, side, 1), "share", "reference"),
                "driving_latents": Field(("B", "F", side, side, c), "latent", "clip"),
                "driving_masks": Field(("B", "F", side, side, 1), "share", "clip"),
                "history_latents": history_latents,
                "history_driving_latents": Field(("B", "T", side, side, c), "latent", "target"),
                "history_masks": Field(("B", "T", side, side, 1), "share", "target"),
            }
        return fields | {
            "frames": Field(("B", "F", s, s, 3), "picture", "target"),
            "frame_masks": Field(("B", "F", s, s, 1), "mask", "target"),
            "portrait": Field(("B", s, s, 3), "picture", "reference"),
            "portrait_mask": Field(("B", s, s, 1), "mask", "reference"),
            "attributes": Field(("B", "A", s, s, 3), "picture", "reference"),
            "attribute_masks": Field(("B", "A", s, s, 1), "mask", "reference"),
            "driving_regions": Field(("B", "F", s, s, 3), "picture", "clip"),
            "driving_masks": Field(("B", "F", s, s, 1), "mask", "clip"),
            "history": Field(("B", "T", s, s, 3), "picture", "clip"),
            "history_regions": Field(("B", "T", s, s, 3), "picture", "target"),
            "history_masks": Field(("B", "T", s, s, 1), "mask", "target"),
            "history_latents": history_latents,
        }

    def guidance_for(self, fields: Collection[str]) -> tuple[str, ...]:
        """The branches of a batch with these fields: the first segment of a video has no history."""
        return self.guidance if {"history", "history_latents"} & {*fields} else self.guidance[:2]

    def encoder_fields(self) -> dict[str, Any]:
        """Fields that decide how samples are encoded."""
        fields = self.to_dict()
        return {name: fields[name] for name in ("image_size", "codec_kind", "codec")}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the family and the codec's kind."""
        return {"family": self.family, **dataclasses.asdict(self), "codec_kind": codec_kind(self.codec)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SVDPConfig":
        """The inverse of `to_dict`, without "family".

        Raises:
            FieldError: see `ModelConfig.from_dict`.
        """
        check_names(values, [*(field.name for field in dataclasses.fields(cls)), "codec_kind"])
        values = dict(values)
        parts = {"codec": codec_from_dict(values), "mmdit": read_section(MMDiTConfig, values, "mmdit")}
        return read_fields(cls, {**values, **parts})
