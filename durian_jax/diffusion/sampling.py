"""How a clip is sampled from a model; the same for every backend."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from durian_jax.diffusion.samplers import SAMPLERS
from durian_jax.errors import InputError

# Limits against typing errors. The paper's scales are at most 2.5, and 40 its steps.
MOST_STEPS, LARGEST_SCALE = 1000, 100.0


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
    """

    steps: int = 1
    guidance_scale: float | tuple[float, ...] = 1.0
    seed: int = 0
    sampler: str = "dpm++"

    def __post_init__(self):
        scales = self.guidance_scale
        if isinstance(scales, list):
            object.__setattr__(self, "guidance_scale", tuple(scales))
        numbers = scales if isinstance(scales, list | tuple) else (scales,)
        if not 1 <= self.steps <= MOST_STEPS or not numbers or not 0 <= self.seed < 2**32 \
                or not all(0 <= number <= LARGEST_SCALE for number in numbers) or self.sampler not in SAMPLERS:
            raise InputError(f"sampling: expected 1..{MOST_STEPS} steps, guidance scales in 0..{LARGEST_SCALE:g}, a "
                             f"seed below 2^32 and a sampler among {', '.join(SAMPLERS)}, found {self}")

    def scales(self, names: Sequence[str]) -> tuple[float, ...]:
        """The scale of every branch after the first.

        Args:
            names: of these branches (`ModelConfig.guidance`).

        Raises:
            InputError: another number of scales.
        """
        scales = self.guidance_scale
        if not names and isinstance(scales, tuple):
            raise InputError(f"guidance_scale: this model has one branch and takes one number, found {scales}")
        if not isinstance(scales, tuple):
            return (scales,) * len(names)
        if len(scales) != len(names):
            raise InputError(f"guidance_scale: expected one number, or one for each of {', '.join(names)}, found "
                             f"{len(scales)}")
        return scales

    def changed(self, given: "Sampling | Mapping[str, Any] | None") -> "Sampling":
        """These settings with what the user gave: all of them, some fields, or None."""
        if isinstance(given, Sampling):
            return given
        return replace(self, **(given or {}))

    def defaults(self) -> dict[str, Any]:
        """The fields that a checkpoint stores."""
        return {name: value for name, value in asdict(self).items() if name != "seed"}
