"""Sources of masks of hair, glasses, beard and hat, by name.

T frames, H x W pixels; masks are bit fields as in `faces.clip.Clip.masks`.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import numpy as np

from durian_jax.checkpoints import SHIPPED
from durian_jax.errors import InputError, cut
from durian_jax.prepare.attributes import Evidence, attribute_masks
from durian_jax.prepare.segformer import SegFormerMasker
from durian_jax.prepare.segmentation_masker import SegmentationMasker
from durian_jax.prepare.tflite import TfliteMasker


class Masker(Protocol):
    """A function that annotates one clip of one person."""

    def __call__(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                 known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
        """Return the attribute masks and the evidence of a clip.

        Args:
            frames: (T, H, W, 3) uint8 RGB.
            keypoints: (T, K, 3) normalised.
            person: (T, H, W) uint8, confidence that a pixel shows a person (0..255).
            known: kinds that are certainly present; a hat that it does not list is certainly absent. None: judge
                all kinds from the pixels.

        Returns:
            masks (T, H, W) uint8 as in `Clip.masks`, and the evidence.
        """


def make_masker(name: str) -> Masker:
    """Return the masker of a name.

    Args:
        name: "default", "heuristic", "segmentation:FOLDER", "segformer:FOLDER_OR_HUB_ID" or "tflite:FILE".

    Raises:
        InputError: the name is unknown, or the masker raises it.
    """
    method, _, source = name.partition(":")
    if name in _BY_NAME:
        return _BY_NAME[name]
    if method in _WITH_SOURCE and source:
        return _WITH_SOURCE[method](source)
    raise InputError(f"unknown masker {cut(name)!r}; expected default, heuristic, segmentation:FOLDER (from durian "
                     "masks train), segformer:FOLDER (a face-parsing model in transformers' format), "
                     "segformer:OWNER/NAME (a model on the Hugging Face hub) or tflite:FILE (a segmentation model of "
                     "MediaPipe)")


def default_masker(frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                   known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
    """A `Masker`: the segmentation networks that ship with the package. The first call reads its weights."""
    return _shipped()(frames, keypoints, person, known)


@lru_cache
def _shipped() -> SegmentationMasker:
    return SegmentationMasker(SHIPPED / "masks")


_BY_NAME: dict[str, Masker] = {"default": default_masker, "heuristic": attribute_masks}
_WITH_SOURCE: dict[str, Callable[[str], Masker]] = {
    "segmentation": SegmentationMasker, "segformer": SegFormerMasker, "tflite": TfliteMasker}
