"""How a clip is sampled from a model; the same for every backend."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from durian_jax.diffusion.samplers import SAMPLERS
from durian_jax.fields import OPTIONAL, FieldError, Items, OneOf, Range, check_fields, read_fields

# Limits against typing errors. The paper's scales are at most 2.5, and 40 its steps.
MOST_STEPS, LARGEST_SCALE = 1000, 100.0
# What starts from noise of its own: every frame; a clip, whose frames share it, so that its traces in the result stand
# still; or nothing: sampling starts from zero, the mean of all noise, which suits models that sample in one step.
NOISES = ("frame", "clip", "none")
_Scale = Annotated[float, Range(0, LARGEST_SCALE)]


@dataclass(frozen=True)
class Sampling:
    """How a clip is sampled from a model. Every checkpoint stores its own defaults, without the seed.

    Attributes:
        steps: number of evaluations of the model.
        guidance_scale: scale s_i of every branch of guidance after the first (`diffusion.guidance`): one number
            for all, or one for each. 1 follows the conditions as trained and is fastest; above 1 exaggerates them.
        seed: of the noise. A frame's noise depends on the seed and on its number in the video only, so that
            overlapping windows of a long video start from the same noise where they overlap.
        sampler: one of `diffusion.SAMPLERS`.
        blend_bend: how far weights of blended attributes are moved towards the middle, see `bent`. Attention blends
            along an S: a quarter of the weight shows less than a quarter of the change.
        noise: one of `NOISES`. In training, the frames of a clip share their noise unless every frame has its own.
    """

    steps: Annotated[int, Range(1, MOST_STEPS)] = 1
    guidance_scale: _Scale | Annotated[tuple[_Scale, ...], Items(1, 16)] = 1.0
    seed: Annotated[int, Range(0, 2**32 - 1), OPTIONAL] = 0
    sampler: Annotated[str, OneOf(SAMPLERS)] = "dpm++"
    noise: Annotated[str, OneOf(NOISES), OPTIONAL] = "frame"
    blend_bend: Annotated[float, Range(0, 0.95), OPTIONAL] = 0.0

    def __post_init__(self):
        if isinstance(self.guidance_scale, list):
            object.__setattr__(self, "guidance_scale", tuple(self.guidance_scale))
        check_fields(self)

    def scales(self, names: Sequence[str]) -> tuple[float, ...]:
        """The scale of every branch after the first.

        Args:
            names: of these branches (`ModelConfig.guidance`).

        Raises:
            FieldError: another number of scales.
        """
        scales = self.guidance_scale
        if not names and isinstance(scales, tuple):
            raise FieldError("guidance_scale", f"this model has one branch and takes one number, found {scales}")
        if not isinstance(scales, tuple):
            return (scales,) * len(names)
        if len(scales) != len(names):
            raise FieldError("guidance_scale", f"expected one number, or one for each of {', '.join(names)}, found "
                             f"{len(scales)}")
        return scales

    def noise_frames(self, first: int, count: int) -> np.ndarray:
        """(count,) uint32: number of the frame whose noise each frame of a video takes, from frame `first` on."""
        return np.arange(first, first + count, dtype=np.uint32) * np.uint32(self.noise == "frame")

    def bent(self, weights: np.ndarray) -> np.ndarray:
        """Bend the weights (..., A) of blended attributes, so that equal steps of them are equal steps in the picture.

        Those of at least 0 still sum to 1; negative ones, which compose, stay. 0, 1 and two halves stay, too.
        """
        bend = self.blend_bend * np.sin(2 * np.pi * weights) / (2 * np.pi)
        moved = np.where(weights < 0, 0, np.clip(weights + bend, 0, 1))
        moved = moved / np.maximum(moved.sum(-1, keepdims=True), 1e-6)
        return np.where(weights < 0, weights, moved).astype(np.float32)

    def with_bent_weights(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """A batch with its attribute_weights, if it has any, `bent`."""
        weights = batch.get("attribute_weights")
        return batch if weights is None else {**batch, "attribute_weights": self.bent(np.asarray(weights))}

    @property
    def noise_scale(self) -> float:
        """What noise is multiplied by, 0 or 1."""
        return float(self.noise != "none")

    @property
    def shared_noise(self) -> bool:
        """Whether frames of a clip share their noise in training."""
        return self.noise != "frame"

    def changed(self, given: "Sampling | Mapping[str, Any] | None") -> "Sampling":
        """These settings with what the user gave: all of them, some fields, or None."""
        if isinstance(given, Sampling):
            return given
        return read_fields(type(self), {**asdict(self), **given}) if given else self

    def defaults(self) -> dict[str, Any]:
        """The fields that a checkpoint stores."""
        return {name: value for name, value in asdict(self).items() if name != "seed"}
