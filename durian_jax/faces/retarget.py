"""Relative 3-D motion: the driver's movement on the portrait's own face.

Driving keypoints taken as they are would give the portrait the driver's face shape (Durian goes
through an intermediate LivePortrait video to avoid that). Here each driving frame is split, against
one reference frame of the same driver, into head pose (rotation, scale, shift of the rigid points)
and expression (what is left over); both are applied to the portrait's keypoints.
"""

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.topology import GROUPS, POSITION, RIGID, K

# Expression moves in proportion to the size of the feature that moves.
_FEATURES = {
    "right_eye": ("right_eye",), "left_eye": ("left_eye",),
    "right_iris": ("right_iris",), "left_iris": ("left_iris",),
    "right_brow": ("right_brow",), "left_brow": ("left_brow",),
    "nose": ("nose_bridge", "nose_base"),
    "mouth": ("outer_lips", "inner_lips"),
    "contour": ("contour",),
}
# Middle of the upper and of the lower lid: a blink must close the portrait's eye, however wide it is.
_LIDS = {"right_eye": (POSITION[159], POSITION[145]), "left_eye": (POSITION[386], POSITION[374])}


def rigid_transform(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Least-squares similarity in space (Umeyama 1991, eq. 39-42).

    Args:
        source: (N, 3) points, not all on one line.
        target: (N, 3) points.

    Returns:
        scale, rotation (3, 3) with determinant +1, shift (3,): target ~ scale * rotation @ source + shift.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, values, v = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = (u * sign) @ v
    scale = float((values * sign).sum() / max((a * a).sum(), 1e-12))
    return scale, rotation, target_mean - scale * rotation @ source_mean


def retarget(driving_keypoints: np.ndarray, portrait_keypoints: np.ndarray, reference: int = 0) -> np.ndarray:
    """Carries a driver's motion, relative to one of its frames, to the portrait's own face.

    With the driver's reference frame as portrait the result is the driving motion itself.

    Args:
        driving_keypoints: (T, K, 3) of the driver, in square pictures.
        portrait_keypoints: (K, 3) of the portrait: it looks like this while the driver looks as in
            its reference frame.
        reference: index of the driver's reference frame, best one with a calm face.

    Returns:
        (T, K, 3) float32.

    Raises:
        InputError: wrong shapes, or no such reference frame.
    """
    driving, portrait = np.asarray(driving_keypoints, np.float64), np.asarray(portrait_keypoints, np.float64)
    if driving.ndim != 3 or driving.shape[1:] != (K, 3) or portrait.shape != (K, 3):
        raise InputError(f"retarget: expected driving (T, {K}, 3) and portrait ({K}, 3) keypoints, found "
                         f"{driving.shape} and {portrait.shape}; give one clip and one photo")
    if not -len(driving) <= reference < len(driving):
        raise InputError(f"retarget: the driver has {len(driving)} frames, there is no reference "
                         f"{reference}; choose 0..{len(driving) - 1}")
    calm = driving[reference]
    size_ratio, turn, _ = rigid_transform(calm[RIGID], portrait[RIGID])
    amount = _amounts(calm, portrait)[:, None]
    driver_centre, portrait_centre = calm[RIGID].mean(0), portrait[RIGID].mean(0)

    result = np.empty_like(driving)
    for index, frame in enumerate(driving):
        scale, rotation, shift = rigid_transform(calm[RIGID], frame[RIGID])
        expression = ((frame - shift) @ rotation) / scale - calm  # in the reference frame's pose
        face = portrait + amount * (expression @ turn.T)
        moved = scale * rotation @ driver_centre + shift - driver_centre
        result[index] = scale * (face - portrait_centre) @ rotation.T + portrait_centre + size_ratio * moved
    return result.astype(np.float32)


def _amounts(calm: np.ndarray, portrait: np.ndarray) -> np.ndarray:
    """(K,) how far a point of the portrait moves for a unit of the driver's expression."""
    amount = np.ones(K)
    for feature, groups in _FEATURES.items():
        points = np.concatenate([np.arange(K)[GROUPS[group]] for group in groups])
        if feature in _LIDS:
            upper, lower = _LIDS[feature]
            mine, theirs = (np.linalg.norm(k[upper] - k[lower]) for k in (portrait, calm))
        else:
            mine, theirs = (np.linalg.norm(k[points] - k[points].mean(0)) for k in (portrait, calm))
        # A driver whose eyes are closed in the reference frame tells nothing about opening them.
        amount[points] = np.clip(mine / max(theirs, 1e-9), 0.4, 2.5)
    return amount
