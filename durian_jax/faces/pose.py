"""Which way a head looks, from its keypoints."""

import numpy as np

from durian_jax.faces.topology import POSITION

# From the subject's right to its left, and from the chin to the hairline (MediaPipe indices).
_ACROSS = [(POSITION[right], POSITION[left]) for right, left in ((33, 263), (133, 362), (127, 356), (234, 454))]
_CHIN, _HAIRLINE = POSITION[152], POSITION[10]


def head_pose(keypoints: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of heads in degrees, all 0 for a face that looks into the camera.

    Args:
        keypoints: (..., K, 3) in a square picture; depth on the same scale, smaller towards the camera.

    Returns:
        (..., 3) float32. Yaw is positive where the nose points to the picture's right, pitch where it points up,
        roll where the head is tilted clockwise in the picture (as in `synthetic.motion`).
    """
    points = np.asarray(keypoints, np.float64)
    right = sum(points[..., b, :] - points[..., a, :] for a, b in _ACROSS)
    right = right / np.maximum(np.linalg.norm(right, axis=-1, keepdims=True), 1e-9)
    down = points[..., _CHIN, :] - points[..., _HAIRLINE, :]
    down = down - (down * right).sum(-1, keepdims=True) * right
    down = down / np.maximum(np.linalg.norm(down, axis=-1, keepdims=True), 1e-9)
    inwards = np.cross(right, down)  # from the face into the head
    yaw = np.arctan2(-inwards[..., 0], np.hypot(inwards[..., 1], inwards[..., 2]))
    pitch = np.arctan2(inwards[..., 1], inwards[..., 2])
    roll = np.arctan2(right[..., 1], right[..., 0])
    return np.degrees(np.stack([yaw, pitch, roll], -1)).astype(np.float32)


def spread_poses(poses: np.ndarray, count: int, first: int) -> list[int]:
    """At most `count` frames with poses as different as there are: `first`, then the farthest from those chosen.

    Args:
        poses: (T, n) angles in degrees.
        count: how many frames; fewer where there are no more.
        first: the frame to begin with.
    """
    chosen = [first]
    while len(chosen) < min(count, len(poses)):
        away = np.linalg.norm(poses[:, None] - poses[chosen], axis=-1).min(1)
        away[chosen] = -1
        chosen.append(int(away.argmax()))
    return chosen
