"""Input features of the segmentation networks: colours, the person's outline and the place on the face.

H x W pixels, K keypoints. P x Q is `PATCH`.
"""

import cv2
import numpy as np

from durian_jax.faces.regions import brow_height, face_frame, glasses_region, lips, oval
from durian_jax.faces.topology import GROUPS
from durian_jax.faces.warp import similarity, warp_image

# Side of the square picture that the network sees.
SIDE = 96
# RGB; Lab relative to the skin; person; u, v and the inside of the face.
CHANNELS = 10
# Patch around the eyes in pixels, and the distance of their centres in it. Rims are too thin for a picture of the head.
PATCH, EYE_DISTANCE = (48, 96), 40
EYE_HEIGHT = 0.42  # of the eyes from the patch's top
_U = 7  # changes its sign in a mirror
_FARTHEST = 1.5  # u and v are cut at this number of face heights
_SCALE = np.array([40, 15, 15], np.float32)  # of Lab differences in the patch
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


def eye_features(frame: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Return (P, Q, 3) float32: colours around the eyes.

    Args:
        frame: (H, W, 3) uint8 RGB.
        keypoints: (K, 3) normalised.
    """
    return relative_colours(cut_eyes(frame, keypoints)[0])


def cut_eyes(frame: np.ndarray, keypoints: np.ndarray, size: tuple[int, int] = PATCH, distance: float = EYE_DISTANCE
             ) -> tuple[np.ndarray, np.ndarray]:
    """Cut a patch with level eyes at a distance; return it and the (2, 3) map from the frame."""
    points = keypoints[:, :2] * frame.shape[1::-1]
    eyes = np.stack([points[GROUPS[name]].mean(axis=0) for name in ("right_eye", "left_eye")])
    middle, half = np.array([size[1] / 2, size[0] * EYE_HEIGHT]), np.array([distance / 2, 0])
    matrix = similarity(eyes, np.stack([middle - half, middle + half]))
    scale = np.hypot(matrix[0, 0], matrix[0, 1])
    if scale < 0.6:  # bilinear sampling would skip pixels
        frame = cv2.GaussianBlur(frame, (0, 0), 0.4 / scale)
    return warp_image(frame, matrix, "replicate", size), matrix


def relative_colours(patch: np.ndarray) -> np.ndarray:
    """Return the Lab colours of (P, Q, 3) uint8 relative to their median."""
    lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB).astype(np.float32)
    return (lab - np.median(lab.reshape(-1, 3), axis=0)) / _SCALE
