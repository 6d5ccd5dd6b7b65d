"""Head pose from keypoints."""

import numpy as np

from durian_jax.faces.topology import POSITION

# From the subject's right to its left, and from the chin to the hairline (MediaPipe indices).
_ACROSS = [(POSITION[right], POSITION[left]) for right, left in ((33, 263), (133, 362), (127, 356), (234, 454))]
_CHIN, _HAIRLINE = POSITION[152], POSITION[10]


def head_axes(keypoints: np.ndarray) -> np.ndarray:
    """Return the directions of heads: rows point to the subject's left, to the chin, and from the face into the head.

    Args:
        keypoints: (..., K, 3) in a square picture; depth in the same units, smaller towards the camera.

    Returns:
        (..., 3, 3) float64, a rotation: the identity for a face that looks into the camera.
    """
    points = np.asarray(keypoints, np.float64)
    right = sum(points[..., b, :] - points[..., a, :] for a, b in _ACROSS)
    right = right / np.maximum(np.linalg.norm(right, axis=-1, keepdims=True), 1e-9)
    down = points[..., _CHIN, :] - points[..., _HAIRLINE, :]
    down = down - (down * right).sum(-1, keepdims=True) * right
    down = down / np.maximum(np.linalg.norm(down, axis=-1, keepdims=True), 1e-9)
    return np.stack([right, down, np.cross(right, down)], -2)


def head_pose(keypoints: np.ndarray) -> np.ndarray:
    """Return yaw, pitch and roll of heads in degrees; all are 0 for a face that looks into the camera.

    Args:
        keypoints: (..., K, 3) in a square picture; depth in the same units, smaller towards the camera.

    Returns:
        (..., 3) float32, signs as in `synthetic.motion`. Positive yaw turns the nose to the picture's right,
        positive pitch lifts it, positive roll tilts the head clockwise in the picture.
    """
    right, down, inwards = np.moveaxis(head_axes(keypoints), -2, 0)
    yaw = np.arctan2(-inwards[..., 0], np.hypot(inwards[..., 1], inwards[..., 2]))
    pitch = np.arctan2(inwards[..., 1], inwards[..., 2])
    roll = np.arctan2(right[..., 1], right[..., 0])
    return np.degrees(np.stack([yaw, pitch, roll], -1)).astype(np.float32)


def spread_poses(poses: np.ndarray, count: int, first: int) -> list[int]:
    """Select at most `count` frames with different poses by farthest-point sampling.

    Args:
        poses: (T, n) angles in degrees.
        count: maximum number of frames; T frames if T is smaller.
        first: index of the first selected frame.
    """
    chosen = [first]
    while len(chosen) < min(count, len(poses)):
        away = np.linalg.norm(poses[:, None] - poses[chosen], axis=-1).min(1)
        away[chosen] = -1
        chosen.append(int(away.argmax()))
    return chosen
