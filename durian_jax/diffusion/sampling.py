"""How a clip is drawn from a model; the same for every backend."""

from dataclasses import dataclass

from durian_jax.diffusion import SAMPLERS
from durian_jax.errors import InputError

# What a batch needs for sampling: the training batch without what is to be found. Of encoded samples, latents stand
# for pictures; identity and embeddings are there where the model has them.
FIELDS = ("keypoints", "portrait", "portrait_mask", "attributes", "attribute_masks", "attribute_valid", "identity",
          "portrait_latents", "attribute_latents", "portrait_embedding", "attribute_embeddings")


@dataclass(frozen=True)
class Sampling:
    """How a clip is drawn from the model.

    Attributes:
        steps: evaluations of the model. The shipped model is closest to the truth with one; more make outlines
            crisper and invent more (its model card has the figures).
        guidance_scale: 1 follows the references as trained and is fastest; above 1 exaggerates them.
        seed: of the noise. A frame's noise depends on the seed and on its number in the video only, so that
            overlapping windows of a long video start from the same noise where they overlap.
        sampler: see `diffusion.SAMPLERS`.
    """

    steps: int = 1
    guidance_scale: float = 1.0
    seed: int = 0
    sampler: str = "dpm++"

    def __post_init__(self):
        if self.steps < 1 or self.guidance_scale < 0 or not 0 <= self.seed < 2**32 or self.sampler not in SAMPLERS:
            raise InputError(f"sampling: expected steps of at least 1, guidance_scale of at least 0, a seed below 2^32 "
                             f"and a sampler among {', '.join(SAMPLERS)}, found {self}")

    @property
    def is_guided(self) -> bool:
        """Whether the unconditional prediction is needed."""
        return self.guidance_scale != 1.0
