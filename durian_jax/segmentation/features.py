"""Input features of the segmentation network: colours, the person's outline and the place on the face.

H x W pixels, K keypoints.
"""

import cv2
import numpy as np

from durian_jax.faces.regions import brow_height, face_frame, glasses_region, lips, oval

# Side of the square picture that the network sees.
SIDE = 96
# RGB; Lab relative to the skin; person; u, v and the inside of the face.
CHANNELS = 10
_U = 7  # changes its sign in a mirror
_FARTHEST = 1.5  # u and v are cut at this number of face heights
_LEAST_SKIN = 6  # pixels


def head_features(frame: np.ndarray, keypoints: np.ndarray, person: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return (side, side, CHANNELS) float32, most values within -1..1.

    Args:
        frame: (H, W, 3) uint8 RGB, a square crop of a head as `prepare.crop` cuts it.
        keypoints: (K, 3) normalised.
        person: (H, W) uint8, confidence that a pixel shows a person (0..255).
        side: of the result in pixels.
    """
    small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
    body = cv2.resize(person, (side, side), interpolation=cv2.INTER_AREA)
    face = face_frame(keypoints, side, side)
    inside = oval(face)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    skin = inside & (face.v < brow_height(face) - 0.05) & ~lips(face) & ~glasses_region(face)
    sample = next(part for part in (lab[skin], lab[inside], lab.reshape(-1, 3)) if len(part) >= _LEAST_SKIN)
    place = np.clip(np.stack([face.u, face.v], -1), -_FARTHEST, _FARTHEST)
    return np.concatenate([small / np.float32(127.5) - 1, (lab - np.median(sample, axis=0)) / 40,
                           body[..., None] / np.float32(127.5) - 1, place, inside[..., None] * 2.0 - 1],
                          axis=-1, dtype=np.float32)


def mirrored(features: np.ndarray) -> np.ndarray:
    """Return the (..., H, W, CHANNELS) features of the mirrored picture."""
    turned = features[..., ::-1, :].copy()
    turned[..., _U] *= -1
    return turned
