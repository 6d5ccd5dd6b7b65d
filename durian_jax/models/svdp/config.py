"""Sizes of the SVDP model: the same code builds `tiny` and `sd35m`. Imports no jax."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from durian_jax.errors import InputError
from durian_jax.models.batch import Field, Spec
from durian_jax.models.codecs.config import (
    AutoencoderKLConfig,
    AutoencoderTinyConfig,
    CodecConfig,
    codec_from_dict,
    codec_kind,
)
from durian_jax.models.family import ModelConfig, from_fields
from durian_jax.models.mmdit.config import STEM_PATCH, MMDiTConfig

# How conditions meet the noisy frames. "joint": all tokens of a frame attend to each other (the paper). "one_way":
# conditions see only themselves, without noise, so that their keys are computed once per video or segment.
MODES = ("joint", "one_way")
# References on the driver's face, for models with `aligned_pictures`.
MOVED = ("moved_source", "moved_attributes")
# Frame rates that go together with a model's: more than half of it and less than twice as many.
_RATES = (0.6, 1.7)


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
    image_size: int = 128
    max_frames: int = 16
    history: int = 3
    codec: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig = CodecConfig()
    mmdit: MMDiTConfig = MMDiTConfig()
    mode: str = "one_way"
    driving_capacity: float = 0.25
    attribute_capacity: float = 1.0
    aligned_pictures: bool = False
    fps: float = 25.0
    dtype: str = "float32"
    identity_dim: None = None

    def __post_init__(self):
        if self.mode not in MODES:
            raise InputError(f"unknown mode {self.mode!r}; expected one of {', '.join(MODES)}")
        if self.image_size < 1 or self.image_size % self.size_multiple:
            raise InputError(f"image_size={self.image_size}: expected a multiple of {self.size_multiple}")
        for name in ("driving_capacity", "attribute_capacity"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a share above 0, at most 1, found {getattr(self, name)}")
        if not isinstance(self.fps, int | float) or not 0 < self.fps <= 1000:
            raise InputError(f"fps: expected frames per second, above 0 and at most 1000, found {self.fps!r}")
        most = (self.max_frames + 1) // 2
        if not 1 <= self.history <= most:
            raise InputError(f"history={self.history}: expected 1..{most} frames, half of a segment of max_frames="
                             f"{self.max_frames}: history comes from the segment before, which may be a short one")
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype: expected float32 or bfloat16, found {self.dtype!r}")
        if self.identity_dim is not None:
            raise InputError("identity_dim: this family uses no identity embedding; set it to None")
        if self.has_stem and self.codec.downscale % min(STEM_PATCH, self.codec.downscale):
            raise InputError(f"mmdit.stem_width={self.mmdit.stem_width}: the stem needs a codec whose latents are at "
                             f"most {STEM_PATCH} pixels wide, or a multiple of it, found {self.codec.downscale}; set "
                             "stem_width to 0")
        side = self.latent_size // self.mmdit.patch
        if self.mmdit.positions == "canvas" and 3 * side > self.mmdit.canvas_size:
            raise InputError(f"mmdit.canvas_size={self.mmdit.canvas_size}: expected at least {3 * side}, three frames "
                             "side by side")

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

    def batch_spec(self, encoded: bool = False) -> Spec:
        """Fields of a batch (design, "Shapes and names"); see `ModelConfig.batch_spec`.

        B clips, F frames, T history frames, A attributes. The loss weighs the region of `frame_masks`: the frames' own
        eyes, nose and mouth, and where they show transferred attributes. The driver's regions in history frames let a
        loss make history by the model itself. `MOVED` references are known where their masks
        are 1.
        """
        fields = {
            "attribute_valid": Field(("B", "A"), "value", "clip"),
            "attribute_weights": Field(("B", "A"), "value", "clip", optional=True),
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
            InputError: an unknown field, or values that contradict each other.
        """
        values = dict(values)
        codec = codec_from_dict(values.pop("codec_kind", "small"), values.pop("codec", {}))
        return from_fields(cls, {**values, "codec": codec, "mmdit": from_fields(MMDiTConfig, values.pop("mmdit", {}))})
