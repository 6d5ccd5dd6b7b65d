"""Durian's training sample, from one clip of one person (self-reconstruction; arXiv 2509.04434, section 3.3).

    frames to reconstruct   F frames of the clip, evenly spaced
    references              an attribute image (ARNet) and a portrait (PRNet) from other frames, see `references`
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from durian_jax.data.augment import change_colours
from durian_jax.data.samples.references import ReferenceSamples, choose_kinds, sample_references, shown, target_frames
from durian_jax.data.samples.views import View
from durian_jax.data.sources import ClipSource
from durian_jax.faces.face_crop import face_crop
from durian_jax.models.durian.config import DurianConfig


@dataclass(frozen=True)
class DurianSamples(ReferenceSamples):
    """How a training sample is made from clips."""

    from_model: ClassVar[tuple[str, ...]] = ("image_size", "mask_references", "face_crops")

    face_crops: bool = False  # add the portrait's face for an identity embedding; if the model has identity_dim

    @classmethod
    def for_model(cls, model: DurianConfig, values: Mapping[str, Any]) -> Self:
        """The settings of a run; see `SampleConfig.for_model`."""
        return cls(**values, image_size=model.image_size, mask_references=model.masked_references,
                   face_crops=model.identity_dim is not None)

    def sample(self, source: ClipSource, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`sample_pair` with these settings."""
        return sample_pair(source, index, rng, self)


def sample_pair(source: ClipSource, index: int, rng: np.random.Generator, config: DurianSamples) -> dict:
    """Make one training sample, see `SampleConfig.sample`.

    Returns:
        The fields of `DurianConfig.batch_spec` without B. Pictures are `views.BLANK` where the model must not see them.
        frame_masks is 0 without `config.frame_masks`. With `config.face_crops`, "face" (112, 112, 3) uint8 replaces
        "identity": the face of the masked portrait, see `faces.face_crop.face_crop`.

    Raises:
        DecodeError: a damaged record, of this clip or of a donor.
    """
    clip, size = source.open(index), config.image_size
    kinds, worn = choose_kinds(source.outline(index).areas, rng, config)
    targets = target_frames(len(clip), config.frames, config.max_stride, rng)
    references = sample_references(source, index, clip, kinds, worn, targets, rng, config)
    views = [View(clip, i, size) for i in targets]
    sample = {
        "frames": np.stack([change_colours(view.frame(), references.colours) for view in views]),
        "frame_masks": np.stack([shown(view, kinds) for view in views])[..., None] if config.frame_masks
        else np.zeros((config.frames, size, size, 1), np.uint8),
        "keypoints": np.stack([view.keypoints for view in views]),
        **references.fields,
    }
    if config.face_crops:
        # As the model sees it: a whole face would show the glasses or the beard that are to be filled in.
        sample["face"] = face_crop(references.source.picture, references.source.keypoints)
    return sample
