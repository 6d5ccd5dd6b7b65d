"""Relative 3-D motion: transfer the driver's movement to the portrait's own face.

Raw driving keypoints would give the portrait the driver's face shape. arXiv 2509.04434 avoids this with an
intermediate LivePortrait video. This module compares each driving frame with one reference frame of the same
driver. The difference is head pose (rotation, scale and shift of the rigid points) and expression (the
residual). Both are applied to the portrait's keypoints.
"""

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.topology import GROUPS, POSITION, RIGID, K

# Features whose size scales the expression.
_FEATURES = {
    "right_eye": ("right_eye",), "left_eye": ("left_eye",),
    "right_iris": ("right_iris",), "left_iris": ("left_iris",),
    "right_brow": ("right_brow",), "left_brow": ("left_brow",),
    "nose": ("nose_bridge", "nose_base"),
    "mouth": ("outer_lips", "inner_lips"),
    "contour": ("contour",),
}
# Middle of the upper and lower lid. The lid gap scales an eye's expression, so that a blink closes any eye.
_LIDS = {"right_eye": (POSITION[159], POSITION[145]), "left_eye": (POSITION[386], POSITION[374])}


def rigid_transform(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least-squares similarity in space (Umeyama 1991, eq. 39-42).

    Args:
        source: (N, 3) points, not all on one line.
        target: (..., N, 3) points, of one or several targets.

    Returns:
        scale (...), rotation (..., 3, 3) with determinant +1, shift (..., 3):
        target ~ scale * rotation @ source + shift.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(-2)
    a, b = source - source_mean, target - target_mean[..., None, :]
    u, values, v = np.linalg.svd(np.swapaxes(b, -1, -2) @ a)
    sign = np.ones_like(values)
    sign[..., 2] = np.sign(np.linalg.det(u) * np.linalg.det(v))
    rotation = (u * sign[..., None, :]) @ v
    scale = (values * sign).sum(-1) / max((a * a).sum(), 1e-12)
    return scale, rotation, target_mean - scale[..., None] * (rotation @ source_mean)


def retarget(driving_keypoints: np.ndarray, portrait_keypoints: np.ndarray, reference: int = 0) -> np.ndarray:
    """Transfer a driver's motion, relative to one of its frames, to the portrait's own face.

    If the portrait equals the driver's reference frame, the result is the driving motion.

    Args:
        driving_keypoints: (T, K, 3) of the driver, in square pictures.
        portrait_keypoints: (K, 3) of the portrait, which correspond to the driver's reference frame.
        reference: index of the driver's reference frame, preferably with a neutral expression.

    Returns:
        (T, K, 3) float32 keypoints of the portrait.

    Raises:
        InputError: the shapes are wrong, or `reference` is out of range.
    """
    driving, portrait = np.asarray(driving_keypoints, np.float64), np.asarray(portrait_keypoints, np.float64)
    if driving.ndim != 3 or driving.shape[1:] != (K, 3) or portrait.shape != (K, 3):
        raise InputError(f"retarget: expected driving (T, {K}, 3) and portrait ({K}, 3) keypoints, found "
                         f"{driving.shape} and {portrait.shape}; give one clip and one photo")
    if not -len(driving) <= reference < len(driving):
        raise InputError(f"retarget: expected a reference frame in 0..{len(driving) - 1}, found {reference}; "
                         f"choose one of the driver's {len(driving)} frames")
    calm = driving[reference]
    size_ratio, turn, _ = rigid_transform(calm[RIGID], portrait[RIGID])
    amount = _amounts(calm, portrait)[:, None]
    driver_centre, portrait_centre = calm[RIGID].mean(0), portrait[RIGID].mean(0)

    result = np.empty_like(driving)
    for index, frame in enumerate(driving):
        scale, rotation, shift = rigid_transform(calm[RIGID], frame[RIGID])
        expression = ((frame - shift) @ rotation) / scale - calm  # in the pose of the reference frame
        face = portrait + amount * (expression @ turn.T)
        moved = scale * rotation @ driver_centre + shift - driver_centre
        result[index] = scale * (face - portrait_centre) @ rotation.T + portrait_centre + size_ratio * moved
    return result.astype(np.float32)


def _amounts(calm: np.ndarray, portrait: np.ndarray) -> np.ndarray:
    """Return (K,): how far each portrait point moves per unit of the driver's expression."""
    amount = np.ones(K)
    for feature, groups in _FEATURES.items():
        points = np.concatenate([np.arange(K)[GROUPS[group]] for group in groups])
        if feature in _LIDS:
            upper, lower = _LIDS[feature]
            mine, theirs = (np.linalg.norm(k[upper] - k[lower]) for k in (portrait, calm))
        else:
            mine, theirs = (np.linalg.norm(k[points] - k[points].mean(0)) for k in (portrait, calm))
        # Limit the ratio, because the reference frame may show closed eyes.
        amount[points] = np.clip(mine / max(theirs, 1e-9), 0.4, 2.5)
    return amount
