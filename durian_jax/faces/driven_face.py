"""A person's face in the head pose of a driver's frame, with the driver's gaze and mouth.

The face keeps its own shape. People's faces differ, so the pose is an estimate. Points that expression hardly moves
give the turn. The eyes give the place. Depth gives most of the size: all drawn people have the same depth
(`synthetic.face`). How much the depth of real faces differs is not measured, so it may only correct the size.

Lids and brows keep the person's expression: one frame does not tell how far they are open or raised for a driver of
that shape.

T frames, K keypoints, in widths of a square picture.
"""

from collections.abc import Collection

import numpy as np

from durian_jax.faces.face_shape import LIPS, difference_in_place, opposite
from durian_jax.faces.pose import head_axes
from durian_jax.faces.retarget import rigid_transform
from durian_jax.faces.topology import GROUPS, POSITION, RIGID, STILL

# Weights of x, y and z in head coordinates for the size of `RIGID`. Between drawn people, where the truth is known, the
# error of sizes is less than half of that with equal weights.
_SIZE = np.array([1, 1, 10])
_LARGEST_CORRECTION = 1.25  # of the size by depth, as a factor
_PLACE = [POSITION[i] for i in (33, 133, 362, 263, 168, 6)]
# Iris -> outer and inner corner of its eye.
_CORNERS = {"right_iris": (POSITION[33], POSITION[133]), "left_iris": (POSITION[263], POSITION[362])}
_FARTHEST_GAZE = 0.5  # largest move of an iris, in widths of its eye
_NOSE_BASE, _CHIN = POSITION[2], POSITION[152]
_CONTOUR = np.arange(GROUPS["contour"].start, GROUPS["contour"].stop)
# How far the chin sinks, in openings of the mouth: as in drawn faces (`synthetic.face`, 0.05 to 0.068).
_CHIN_SINKS = 0.73


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
    plain, rotation, _ = rigid_transform(face[STILL], faces[:, STILL])
    axes = head_axes(face)
    own = (face[RIGID] - face[RIGID].mean(0)) @ axes.T
    others = (faces[:, RIGID] - faces[:, RIGID].mean(1, keepdims=True)) @ rotation @ axes.T
    scale = (_SIZE * own * others).sum((1, 2)) / max((_SIZE * own * own).sum(), 1e-12)
    scale = np.clip(scale, plain / _LARGEST_CORRECTION, plain * _LARGEST_CORRECTION)
    shift = faces[:, _PLACE].mean(1) - scale[:, None] * (rotation @ face[_PLACE].mean(0))
    return scale, rotation, shift


def turn_in_plane(rotation: np.ndarray) -> np.ndarray:
    """Return the turns in the picture's plane (..., 2, 2) that are nearest to rotations (..., 3, 3)."""
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
    """Return (T, K, 3): a face in the poses of a driver, with the driver's gaze and mouth.

    An iris lies in its eye where the driver's does. The mouth has its own place, width and thickness of the lips; it
    opens and smiles as the driver's does, and the chin follows.

    Args:
        face: (K, 3).
        faces: (T, K, 3) of the driver.
        motion: `head_motion` from the first to the second.
        regions: of `topology.REGION_KINDS`; irises move with "eyes", lips and chin with "mouth".
    """
    own, drivers = _heads(face, faces, motion)
    moved = np.repeat(own[None], len(faces), 0)
    if "eyes" in regions:
        for iris, corners in _CORNERS.items():
            mine, theirs = (_in_eye(heads[:, GROUPS[iris]], heads[:, corners]) for heads in (own[None], drivers))
            width = np.linalg.norm(own[corners[0]] - own[corners[1]])
            gaze = np.clip(theirs - mine, -_FARTHEST_GAZE, _FARTHEST_GAZE)
            moved[:, GROUPS[iris]] += (width * gaze)[:, None]
    if "mouth" in regions:
        moved[:, LIPS] = _shaped(own, drivers)[:, LIPS]
        below = (own[_CONTOUR, 1] - own[_NOSE_BASE, 1]) / max(own[_CHIN, 1] - own[_NOSE_BASE, 1], 1e-9)
        opened = _opening(drivers) - _opening(own)
        moved[:, _CONTOUR, 1] += _CHIN_SINKS * opened[:, None] * np.clip(below, 0, 1)
    return _posed(moved, face, motion)


def shaped_faces(face: np.ndarray, faces: np.ndarray, motion: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Return (T, K, 3): a driver's faces in the same poses and with the same expressions, but with a person's shape.

    Args:
        face: (K, 3) of the person.
        faces: (T, K, 3) of the driver.
        motion: `head_motion` from the first to the second.
    """
    own, drivers = _heads(face, faces, motion)
    return _posed(_shaped(own, drivers), face, motion)


def _shaped(own: np.ndarray, drivers: np.ndarray) -> np.ndarray:
    """(T, K, 3) drivers with the shape of (K, 3), all in the same head coordinates."""
    return np.stack([driver + difference_in_place(driver, own) for driver in drivers])


def _heads(face: np.ndarray, faces: np.ndarray, motion: tuple[np.ndarray, np.ndarray, np.ndarray]
           ) -> tuple[np.ndarray, np.ndarray]:
    """A person and a driver in the same head coordinates, the person's: (K, 3) and (T, K, 3)."""
    scale, rotation, shift = motion
    axes, centre = head_axes(face), face[RIGID].mean(0)
    back = (faces - shift[:, None]) @ rotation / scale[:, None, None]
    return (face - centre) @ axes.T, (back - centre) @ axes.T


def _posed(heads: np.ndarray, face: np.ndarray, motion: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """The inverse of `_heads` for (T, K, 3) heads: in the driver's poses."""
    scale, rotation, shift = motion
    points = heads @ head_axes(face) + face[RIGID].mean(0)
    return scale[:, None, None] * (points @ rotation.swapaxes(1, 2)) + shift[:, None]


def _in_eye(iris: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(T, 3): where (T, 5, 3) points of an iris lie from the middle of (T, 2, 3) corners, in widths of the eye."""
    width = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1, keepdims=True)
    return (iris.mean(1) - corners.mean(1)) / np.maximum(width, 1e-9)


def _opening(heads: np.ndarray) -> np.ndarray:
    """Return (...): the largest gap between the inner lips of (..., K, 3) head coordinates."""
    upper, lower = opposite(np.arange(GROUPS["inner_lips"].start, GROUPS["inner_lips"].stop))
    return np.maximum(heads[..., lower, 1] - heads[..., upper, 1], 0).max(-1)
