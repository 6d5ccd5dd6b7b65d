"""The shape of a face, apart from its pose and expression, and what turns one person's face into another's.

T frames, K keypoints. Head coordinates: x to the subject's left, y to the chin, z into the head, in picture widths, as
in a picture of a face that looks into the camera.
"""

import numpy as np

from durian_jax.faces.pose import head_axes, head_pose
from durian_jax.faces.retarget import rigid_transform
from durian_jax.faces.topology import GROUPS, POSITION, RIGID

_CHIN, _HAIRLINE = POSITION[152], POSITION[10]
_POINTS = {name: np.arange(part.start, part.stop) for name, part in GROUPS.items()}
LIPS = np.concatenate([_POINTS["outer_lips"], _POINTS["inner_lips"]])
_LONGEST = 16  # largest number of frames in which a shape is measured
_FARTHEST = 0.1  # largest move of a point, in face heights
_STRETCH = 0.12  # largest relative change of the mouth's width; a smile is wider than any other mouth
_THICKNESS = 1.5  # largest factor of the lips' thickness
_BLINK = 40.0  # degrees of head pose that are as bad as closed eyes


def calm_frame(keypoints: np.ndarray) -> int:
    """Return the frame of (T, K, 3) keypoints that looks into the camera with open eyes."""
    def distance(first: int, second: int) -> np.ndarray:
        return np.linalg.norm(keypoints[:, POSITION[first], :2] - keypoints[:, POSITION[second], :2], axis=-1)
    gap = (distance(159, 145) + distance(386, 374)) / np.maximum(distance(33, 133) + distance(362, 263), 1e-6)
    closed = np.clip(1 - gap / max(float(np.median(gap)), 1e-6), 0, 1)
    return int((np.abs(head_pose(keypoints)[:, :2]).sum(-1) + _BLINK * closed).argmin())


def face_height(face: np.ndarray) -> np.ndarray:
    """Return the distance from the chin to the hairline of (..., K, n) points."""
    return np.linalg.norm(face[..., _HAIRLINE, :] - face[..., _CHIN, :], axis=-1)


def face_shape(keypoints: np.ndarray) -> np.ndarray:
    """Return (K, 3) in head coordinates: the median of some of a person's (T, K, 3) frames, without their poses."""
    calm = keypoints[calm_frame(keypoints)].astype(np.float64)
    chosen = np.linspace(0, len(keypoints) - 1, min(len(keypoints), _LONGEST)).round().astype(int)
    scale, rotation, shift = rigid_transform(calm[RIGID], keypoints[chosen][:, RIGID])
    posed = ((keypoints[chosen] - shift[:, None]) @ rotation) / scale[:, None, None]
    shape = np.median(posed, 0)
    return (shape - shape[RIGID].mean(0)) @ head_axes(calm).T


def shape_difference(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return (K, 3): add it to a face in head coordinates to get the other person's shape with the same expression.

    The two faces may have different expressions. Opposite points of lids therefore move up or down together, an iris
    moves with its eye, and the mouth only gets another place, width and thickness of the lips: it neither opens nor
    smiles.

    Args:
        own, other: (K, 3) of `face_shape`.
    """
    scale, rotation, shift = rigid_transform(other[RIGID], own[RIGID])
    return difference_in_place(own, scale * other @ rotation.T + shift)


def difference_in_place(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return `shape_difference` of heads that lie on each other already."""
    difference = other - own
    lengths = np.linalg.norm(difference, axis=-1, keepdims=True)
    difference *= np.minimum(1, _FARTHEST * face_height(own) / np.maximum(lengths, 1e-9))
    for side in ("right", "left"):
        upper, lower = opposite(_POINTS[f"{side}_eye"])
        middle = (difference[upper, 1:] + difference[lower, 1:]) / 2
        difference[upper, 1:] = difference[lower, 1:] = middle
        difference[_POINTS[f"{side}_iris"]] = difference[_POINTS[f"{side}_eye"]].mean(0)
    difference[LIPS] = _lips_difference(own, own + difference)
    return difference


def _lips_difference(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(lips, 3): see `shape_difference`; both faces are (K, 3) in the same place."""
    inner, outer = opposite(_POINTS["inner_lips"]), opposite(_POINTS["outer_lips"])
    # The upper lip: the lower one moves with the jaw.
    moved = np.zeros_like(own)
    moved[LIPS] = (wanted - own)[inner[0]].mean(0)
    across = own[LIPS, 0] - own[LIPS, 0].mean()
    stretch = float(across @ (wanted[LIPS, 0] - own[LIPS, 0]) / max(across @ across, 1e-12))
    moved[LIPS, 0] += np.clip(stretch, -_STRETCH, _STRETCH) * across
    for edge, inside in zip(outer, inner, strict=True):
        mine, theirs = (shape[edge, 1] - shape[inside, 1] for shape in (own, wanted))
        thicker = abs(theirs.mean()) / max(abs(mine.mean()), 1e-9)
        moved[edge, 1] += (np.clip(thicker, 1 / _THICKNESS, _THICKNESS) - 1) * mine
    return moved[LIPS]


def opposite(loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points on the upper edge of lids or lips, and below them those on the lower edge."""
    half = len(loop) // 2
    return loop[:half:-1], loop[1:half]


def moved_shape(keypoints: np.ndarray, shape: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Return (T, K, 3) float32: keypoints with a difference in head coordinates added, in the pose of every frame.

    Args:
        keypoints: (T, K, 3).
        shape: (K, 3), `face_shape` of them.
        difference: (K, 3) in the same coordinates.
    """
    scale, rotation, _ = rigid_transform(shape[RIGID], keypoints[:, RIGID])
    turned = difference @ np.swapaxes(rotation, -1, -2)
    return (keypoints + scale[:, None, None] * turned).astype(np.float32)
