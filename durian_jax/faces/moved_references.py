"""Reference pictures moved by similarities onto the faces of a driving clip.

T frames, H x W pixels, K keypoints. Pictures are uint8 or float; results have their dtype.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from durian_jax.faces.fill_region import LAYERS
from durian_jax.faces.warp import keypoint_similarity, warp_image, warp_mask

# A moved pixel counts as known if more than this share of it comes from known ones.
_WHOLLY = 0.99


@dataclass(frozen=True)
class Reference:
    """A picture of a face, or of something that a face wears.

    Attributes:
        picture: (H, W, 3).
        known: (H, W) bool, pixels that may be shown.
        keypoints: (K, 3) of the face.
        kind: of the attribute; "": the source.
    """

    picture: np.ndarray
    known: np.ndarray
    keypoints: np.ndarray
    kind: str = ""

    def on(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The picture on each of (T, K, 3) faces: (T, H, W, 3), and (T, H, W) bool, what is known of it."""
        height, width = self.picture.shape[:2]
        moves = [keypoint_similarity(self.keypoints, face, height, width) for face in faces]
        return (np.stack([warp_image(self.picture, move, "replicate") for move in moves]),
                np.stack([warp_mask(self.known, move, _WHOLLY) for move in moves]))


def on_faces(references: Sequence[Reference], faces: np.ndarray, blank: np.ndarray,
             weights: np.ndarray | Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """References on the faces of a clip, on top of each other as they are worn.

    Args:
        references: the source alone, or attributes.
        faces: (T, K, 3).
        blank: (H, W, 3), what unknown pixels show; decides size and dtype.
        weights: of each reference: blend them instead; they sum to 1.

    Returns:
        (T, H, W, 3) pictures, and (T, H, W) float32, the share of each pixel that is known: 0 or 1 without weights.
    """
    pictures = np.repeat(blank[None], len(faces), 0)
    known = np.zeros(pictures.shape[:3], np.float32)
    if weights is None:
        for reference in sorted(references, key=lambda reference: (*LAYERS, "").index(reference.kind)):
            moved, shown = reference.on(faces)
            pictures = np.where(shown[..., None], moved, pictures)
            known = np.maximum(known, shown)
        return pictures, known
    total = np.zeros(pictures.shape, np.float32)
    for reference, weight in zip(references, weights, strict=True):
        moved, shown = reference.on(faces)
        total += weight * np.where(shown[..., None], moved, pictures)
        known += weight * shown
    return total.astype(pictures.dtype), known
