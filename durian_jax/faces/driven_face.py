"""A person's face in the head pose of a driver's frame, with the driver's gaze and mouth.

The face keeps its own shape. People's faces differ, so the pose is an estimate. All points that expression hardly moves
give the turn, the eyes the place, and depth most of the size: how far ears lie behind eyes and nose differs less among
people than how wide and high their faces are. Lids and brows keep the person's expression: one frame does not tell how
far they are open or raised for a driver of that shape.

T frames, K keypoints.
"""

from collections.abc import Collection

import numpy as np

from durian_jax.faces.face_shape import LIPS, opposite, shape_difference
from durian_jax.faces.pose import head_axes
from durian_jax.faces.retarget import rigid_transform
from durian_jax.faces.topology import GROUPS, POSITION, RIGID

# `RIGID`, and the part of the contour that does not move with the jaw.
_STILL = np.union1d(RIGID, [POSITION[i] for i in (10, 338, 297, 332, 284, 251, 389, 356, 454,
                                                  234, 127, 162, 21, 54, 103, 67, 109)])
# Weights of x, y and z in head coordinates for the size of `RIGID`. Between drawn people, where the truth is known,
# sizes are 0.8 % wrong, and 2.7 % with equal weights; turns 0.7 degrees, and 1.6 by `RIGID` alone. Between frames of
# one real person, where equal weights are right, sizes change by 0.8 %.
_SIZE = np.array([1, 1, 10])
_PLACE = [POSITION[i] for i in (33, 133, 362, 263, 168, 6)]
# Iris -> outer and inner corner of its eye.
_CORNERS = {"right_iris": (POSITION[33], POSITION[133]), "left_iris": (POSITION[263], POSITION[362])}
_NOSE, _CHIN = POSITION[2], POSITION[152]
_CONTOUR = np.arange(GROUPS["contour"].start, GROUPS["contour"].stop)
_JAW = 0.75  # how far the chin sinks, in openings of the mouth


def head_motion(face: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate the similarity in space from a person's head to the poses of another's.

    Args:
        face: (K, 3).
        faces: (T, K, 3) of the other person.

    Returns:
        scale (T), rotation (T, 3, 3), shift (T, 3): a point of the person's head goes to scale * rotation @ point +
        shift.
    """
    face, faces = np.asarray(face, np.float64), np.asarray(faces, np.float64)
    rotation = rigid_transform(face[_STILL], faces[:, _STILL])[1]
    axes = head_axes(face)
    own = (face[RIGID] - face[RIGID].mean(0)) @ axes.T
    others = (faces[:, RIGID] - faces[:, RIGID].mean(1, keepdims=True)) @ rotation @ axes.T
    scale = (_SIZE * own * others).sum((1, 2)) / max((_SIZE * own * own).sum(), 1e-12)
    shift = faces[:, _PLACE].mean(1) - scale[:, None] * (rotation @ face[_PLACE].mean(0))
    return scale, rotation, shift


def turn_in_plane(rotation: np.ndarray) -> np.ndarray:
    """Return (..., 2, 2): of all turns in the picture's plane, those nearest to (..., 3, 3) rotations."""
    roll = np.arctan2(rotation[..., 1, 0] - rotation[..., 0, 1], rotation[..., 0, 0] + rotation[..., 1, 1])
    return np.stack([np.cos(roll), -np.sin(roll), np.sin(roll), np.cos(roll)], -1).reshape(*roll.shape, 2, 2)


def motion_in_plane(face: np.ndarray, other: np.ndarray, side: int) -> np.ndarray:
    """Return the (2, 3) similarity in pixels that gives a head the size, the roll and the eyes' place of another head.

    Args:
        face, other: (K, 3), in pictures of side x side pixels.
        side: in pixels.
    """
    scale, rotation, _ = head_motion(face, other[None])
    linear = scale[0] * turn_in_plane(rotation[0])
    shift = other[_PLACE, :2].mean(0) - linear @ face[_PLACE, :2].mean(0)
    return np.concatenate([linear, side * shift[:, None]], 1)


def driven_faces(face: np.ndarray, faces: np.ndarray, motion: tuple[np.ndarray, np.ndarray, np.ndarray],
                 regions: Collection[str]) -> np.ndarray:
    """Return (T, K, 3): a face moved by a head's motion, with what the driver's regions do.

    An iris lies in its eye where the driver's does. The mouth has its own place, width and thickness of the lips; it
    opens and smiles as the driver's does, and the chin follows.

    Args:
        face: (K, 3).
        faces: (T, K, 3) of the driver.
        motion: `head_motion` from the first to the second.
        regions: of `topology.REGION_KINDS`; irises move with "eyes", lips and chin with "mouth".
    """
    scale, rotation, shift = motion
    axes, centre = head_axes(face), face[RIGID].mean(0)
    own = (face - centre) @ axes.T
    drivers = ((faces - shift[:, None]) @ rotation / scale[:, None, None] - centre) @ axes.T
    moved = np.repeat(own[None], len(faces), 0)
    if "eyes" in regions:
        for iris, corners in _CORNERS.items():
            mine, theirs = (_in_eye(heads[:, GROUPS[iris]], heads[:, corners]) for heads in (own[None], drivers))
            width = np.linalg.norm(own[corners[0]] - own[corners[1]])
            moved[:, GROUPS[iris]] += (width * (theirs - mine))[:, None]
    if "mouth" in regions:
        for now, driver in zip(moved, drivers, strict=True):
            now[LIPS] = (driver + shape_difference(driver, own))[LIPS]
            now[_CONTOUR, 1] += _JAW * (_opening(driver) - _opening(own)) * np.clip(
                (own[_CONTOUR, 1] - own[_NOSE, 1]) / max(own[_CHIN, 1] - own[_NOSE, 1], 1e-9), 0, 1)
    return scale[:, None, None] * ((moved @ axes + centre) @ rotation.swapaxes(1, 2)) + shift[:, None]


def _in_eye(iris: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(T, 3): where (T, 5, 3) points of an iris lie from the middle of (T, 2, 3) corners, in widths of the eye."""
    width = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1, keepdims=True)
    return (iris.mean(1) - corners.mean(1)) / np.maximum(width, 1e-9)


def _opening(head: np.ndarray) -> float:
    """How far the mouth of (K, 3) head coordinates is open in its middle."""
    upper, lower = opposite(np.arange(GROUPS["inner_lips"].start, GROUPS["inner_lips"].stop))
    return float(np.abs(head[lower, 1] - head[upper, 1]).max())
