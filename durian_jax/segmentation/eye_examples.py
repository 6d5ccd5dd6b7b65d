"""Training examples of eyes with and without glasses, changed at random.

P x Q is `features.PATCH` in pixels, K keypoints.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from durian_jax.faces.drawn_glasses import DrawnGlasses
from durian_jax.faces.regions import face_frame, glasses_region
from durian_jax.faces.topology import GROUPS
from durian_jax.faces.warp import warp_image
from durian_jax.segmentation.examples import Example, relit
from durian_jax.segmentation.features import EYE_DISTANCE, EYE_HEIGHT, PATCH, cut_eyes, relative_colours

_LARGER = (96, 192)  # patch of an example, with room for changes; the eyes' distance is 1.5 times that of `PATCH`
_WORN = 0.1  # of the region of glasses, from which on glasses are worn before the eyes


@dataclass(frozen=True)
class EyeExample:
    """The surroundings of a person's eyes.

    Attributes:
        frame: (96, 192, 3) uint8 RGB.
        points: (K, 2) keypoints in pixels of it.
        worn: whether glasses are worn before the eyes.
    """

    frame: np.ndarray
    points: np.ndarray
    worn: bool


def eye_example(frame: np.ndarray, keypoints: np.ndarray, worn: bool) -> EyeExample:
    """Return the example of a picture; see `eye_features`."""
    patch, matrix = cut_eyes(frame, keypoints, _LARGER, 1.5 * EYE_DISTANCE)
    points = keypoints[:, :2] * frame.shape[1::-1] @ matrix[:, :2].T + matrix[:, 2]
    return EyeExample(patch, points, worn)


def procedural_eyes(example: Example) -> EyeExample:
    """Return the example of a procedural person."""
    return eye_example(example.frame, example.keypoints, bool(example.masks[..., 1].any()))


def glasses_worn(mask: np.ndarray, keypoints: np.ndarray) -> bool:
    """Whether an (H, W) bool mask of glasses, or of their rims, lies before the eyes; glasses in the hair do not."""
    region = glasses_region(face_frame(keypoints, *mask.shape))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
    return bool((filled & region).sum() > _WORN * region.sum())


def changed_eyes(example: EyeExample, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Change an example at random: glasses of all kinds, position, resolution and light.

    Returns:
        (P, Q, 3) float32 features, and whether glasses are worn.
    """
    frame, points, worn = example.frame, example.points, example.worn
    if not worn and rng.random() < 0.45:
        frame, worn = _with_glasses(frame, points, rng), True
    if rng.random() < 0.4:
        share = rng.uniform(0.3, 0.8)
        frame = cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    shrink = np.array(PATCH[::-1]) / frame.shape[1::-1]
    angle, scale = rng.normal() * 0.06, 4 / 3 * np.exp(rng.normal() * 0.06)
    middle = np.array(PATCH[::-1]) * (0.5, EYE_HEIGHT)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Around the eyes' middle.
    matrix = np.concatenate([turn * shrink, (middle - turn @ middle + rng.normal(size=2) * 1.5)[:, None]], axis=1)
    patch = relit(warp_image(frame, matrix, "replicate", PATCH).astype(np.float32), rng)
    return relative_colours(patch[:, ::-1] if rng.random() < 0.5 else patch), worn


def _with_glasses(frame: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw glasses; some are transparent, some have no lower rim."""
    glasses = DrawnGlasses.sample(rng)
    opacity = glasses.opacity if rng.random() < 0.6 else rng.uniform(0.2, 0.95)
    glasses = replace(glasses, opacity=opacity, rim=glasses.rim * rng.uniform(0.3, 1.2))
    share = np.full((len(frame), 1, 1), rng.uniform(0.35, 1) if rng.random() < 0.5 else 1.0)
    if rng.random() < 0.25:
        height = np.mean([points[GROUPS[name], 1].mean() for name in ("right_eye", "left_eye")])
        share *= 0.1 + 0.9 * np.clip((height - np.arange(len(frame))) / 4 + 0.5, 0, 1)[:, None, None]
    return np.rint(frame * (1 - share) + glasses.worn(frame, points) * share).astype(np.uint8)
