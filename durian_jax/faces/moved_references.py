"""Reference pictures turned into the head poses of a driving clip.

The face of a reference turns in space as the driver's head does, and keeps its shape: a similarity in space takes its
rigid points to the driver's. A spline through its points moves the picture.

T frames, H x W pixels, K keypoints. Pictures are uint8 or float; results have their dtype.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from durian_jax.faces.fill_region import LAYERS
from durian_jax.faces.retarget import rigid_transform
from durian_jax.faces.topology import RIGID
from durian_jax.faces.warp import spline_field

# A moved pixel counts as known if more than this share of it comes from known ones.
_WHOLLY = 0.99
_SMOOTH = 1.0  # of the spline: it bends little where there are no points
_EVERY = 2  # every second keypoint is as good as all, and much faster


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
        """The picture in the poses of (T, K, 3) faces: (T, H, W, 3), and (T, H, W) bool, what is known of it."""
        scale, rotation, shift = rigid_transform(self.keypoints[RIGID], faces[:, RIGID])
        points = self.keypoints[::_EVERY]
        turned = scale[:, None, None] * (points @ rotation.swapaxes(1, 2)) + shift[:, None]
        known = self.known.view(np.uint8) * np.uint8(255)
        pictures, shares = [], []
        for face in turned:
            origin = spline_field(face[:, :2], points[:, :2], *self.known.shape, _SMOOTH)
            pictures.append(cv2.remap(self.picture, origin, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
            shares.append(cv2.remap(known, origin, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
        return np.stack(pictures), np.stack(shares) > 255 * _WHOLLY


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
        total += weight * np.where(shown[..., None], moved, 0)
        known += weight * shown
    # A mean of what is known: whoever sees the picture weighs it with the share.
    mean = total / np.maximum(known, 1e-6)[..., None]
    return np.where(known[..., None] > 0, mean, pictures).astype(pictures.dtype), known
