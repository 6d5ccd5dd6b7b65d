"""Where hair, glasses, beard and hat may land on a face, from its keypoints alone.

`prepare.attributes` finds the pixels that really show an attribute.

Face coordinates have their origin between the eyes. One unit is the distance from chin to hairline. u points
to the picture's right and v up; both rotate with the head.

H x W pixels, K keypoints (`faces.topology`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from durian_jax.faces.clip import attribute_bit, layer_bit
from durian_jax.faces.topology import GROUPS, POSITION, REGION_KINDS

_CHIN, _HAIRLINE, _BRIDGE = POSITION[152], POSITION[10], POSITION[168]
_RIGHT_TEMPLE, _LEFT_TEMPLE = POSITION[127], POSITION[356]
# Jaw from the subject's left ear lobe over the chin to the right one.
_JAW = [POSITION[i] for i in (361, 288, 397, 365, 379, 378, 400, 377, 152,
                              148, 176, 149, 150, 136, 172, 58, 132)]
_NOSE_BASE = [POSITION[i] for i in (98, 2, 327)]


@dataclass(frozen=True)
class FaceFrame:
    """Face coordinates of every pixel.

    Attributes:
        u, v: (H, W) float32, right and up in face heights from the point between the eyes.
        points: (K, 2) float32 keypoints in pixels.
        unit: pixels per face height.
    """

    u: np.ndarray
    v: np.ndarray
    points: np.ndarray
    unit: float


def face_frame(keypoints: np.ndarray, height: int, width: int) -> FaceFrame:
    """Return the face coordinates for (K, 3) normalised keypoints."""
    points = keypoints[:, :2] * np.array([width, height], np.float32)
    up = points[_HAIRLINE] - points[_CHIN]
    unit = float(max(np.hypot(*up), 1.0))
    up = up / unit
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    dx, dy = x - points[_BRIDGE, 0], y - points[_BRIDGE, 1]
    # y grows downwards in a picture, so u is v rotated clockwise.
    return FaceFrame((-up[1] * dx + up[0] * dy) / unit, (up[0] * dx + up[1] * dy) / unit, points, unit)


def oval(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: inside the face contour, chin to hairline."""
    return fill_polygon(face.points[GROUPS["contour"]], *face.u.shape)


def lips(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: lips and open mouth."""
    return fill_polygon(face.points[GROUPS["outer_lips"]], *face.u.shape)


def neck(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: a column below the chin that hair does not cover."""
    chin = face.v[tuple(np.clip(_pixel(face.points[_CHIN])[::-1], 0, np.array(face.u.shape) - 1))]
    return (np.abs(face.u) < 0.25) & (face.v < chin + 0.05) & ~oval(face)


def brow_height(face: FaceFrame) -> float:
    """Return the mean v of the brows."""
    brows = np.concatenate([face.points[GROUPS["right_brow"]], face.points[GROUPS["left_brow"]]])
    return float(((brows - face.points[_BRIDGE]) @ _up(face)).mean() / face.unit)


def _up(face: FaceFrame) -> np.ndarray:
    """(2,) unit vector from the chin to the hairline in the picture."""
    return (face.points[_HAIRLINE] - face.points[_CHIN]) / face.unit


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return int(round(float(point[0]))), int(round(float(point[1])))


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) bool: inside the polygon of (N, 2) points in pixels."""
    mask = np.zeros((height, width), np.uint8)
    # Four fractional bits let polygons move smoothly from frame to frame.
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def glasses_region(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: two lenses, the bridge and the arms as far as the temples."""
    height, width = face.u.shape
    mask = np.zeros((height, width), np.uint8)
    for eye, temple in (("right_eye", _RIGHT_TEMPLE), ("left_eye", _LEFT_TEMPLE)):
        corners = face.points[GROUPS[eye]]
        centre = corners.mean(axis=0)
        # The visible eye width shrinks with the head's yaw, as a lens does.
        across = corners[8] - corners[0]
        angle = np.degrees(np.arctan2(across[1], across[0]))
        radius = (max(0.82 * np.hypot(*across), 1.0), 0.19 * face.unit)
        centre_down = centre - 0.025 * _up(face) * face.unit
        box = (tuple(map(float, centre_down)), (2 * radius[0], 2 * radius[1]), float(angle))
        cv2.ellipse(mask, box, 1, -1)
        thick = max(1, round(0.07 * face.unit))
        for end in (face.points[temple], face.points[_BRIDGE]):
            cv2.line(mask, _pixel(centre), _pixel(end), 1, thick)
    return mask > 0


def beard_region(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: from under the nose to below the chin, without the lips."""
    jaw = face.points[_JAW]
    middle = face.points[_NOSE_BASE].mean(axis=0)
    # A beard stands out from the jaw, most below the chin.
    away = jaw - middle
    outward = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    depth = 0.13 * np.clip(-(outward @ _up(face)), 0, 1)[:, None] + 0.02
    cheeks = [0.55 * face.points[POSITION[lobe]] + 0.45 * face.points[POSITION[corner]]
              for lobe, corner in ((132, 61), (361, 291))]
    outline = np.concatenate([jaw + outward * depth * face.unit, cheeks[:1], face.points[_NOSE_BASE],
                              cheeks[1:]])
    return fill_polygon(outline, *face.u.shape) & ~lips(face)


def moustache_region(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: between the nose and the upper lip, out to the corners of the mouth."""
    above, corners = face.points[_NOSE_BASE], face.points[[POSITION[61], POSITION[291]]]
    # Moustaches reach a little beyond the corners.
    corners = corners + 0.25 * (corners - corners.mean(axis=0))
    lip = face.points[[POSITION[index] for index in (40, 37, 0, 267, 270)]]
    outline = np.concatenate([corners[:1], above, corners[1:], lip[::-1]])
    return fill_polygon(outline, *face.u.shape) & ~lips(face)


def hat_region(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: a large dome above the brows."""
    start = brow_height(face) + 0.04
    return (face.v > start) & ((face.u / 0.85) ** 2 + ((face.v - start) / 1.05) ** 2 < 1)


def hair_region(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: around the head down to the shoulders, without neck and face below the brows."""
    head = (face.u / 0.82) ** 2 + ((face.v + 0.05) / 1.05) ** 2 < 1
    return head & ~(oval(face) & (face.v < brow_height(face))) & ~neck(face)


_OF_KIND = {"hair": hair_region, "glasses": glasses_region, "beard": beard_region, "hat": hat_region}


def landing_region(kind: str, keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (H, W) bool: where an attribute of this kind may land on a face.

    Args:
        kind: one of `ATTRIBUTE_KINDS`.
        keypoints: (K, 3) normalised.
        height, width: size of the picture in pixels.

    Raises:
        InputError: `kind` is unknown.
    """
    attribute_bit(kind)
    return _OF_KIND[kind](face_frame(keypoints, height, width))


# Region of a driver's face -> keypoint groups whose convex hulls form it (arXiv 2509.17476, section 3.2).
_REGION_GROUPS = {"eyes": (("right_brow", "right_eye"), ("left_brow", "left_eye")),
                  "nose": (("nose_bridge", "nose_base"),), "mouth": (("outer_lips",),)}
_REGION_MARGIN = 0.03  # around the hulls, in face heights, for lashes, nostrils and the lips' outline


def expression_regions(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (H, W) uint8, `clip.MASK_LAYERS` bits of eyes (with brows), nose and mouth of (K, 3) keypoints."""
    points = keypoints[:, :2] * np.array([width, height], np.float32)
    margin = max(1, round(_REGION_MARGIN * float(np.hypot(*(points[_HAIRLINE] - points[_CHIN])))))
    field = np.zeros((height, width), np.uint8)
    for kind in REGION_KINDS:
        mask = np.zeros((height, width), np.uint8)
        for groups in _REGION_GROUPS[kind]:
            corners = np.concatenate([points[GROUPS[group]] for group in groups]).astype(np.float32)
            hull = np.rint(cv2.convexHull(corners) * 16).astype(np.int32)
            cv2.fillConvexPoly(mask, hull, 1, shift=4)
            cv2.polylines(mask, [hull], True, 1, 2 * margin, shift=4)
        field |= mask * np.uint8(layer_bit(kind))
    return field


def driven_region(keypoints: np.ndarray, height: int, width: int, kinds: Iterable[str] = REGION_KINDS) -> np.ndarray:
    """(H, W) bool: the union of some of `REGION_KINDS` of a face with (K, 3) keypoints."""
    bits = sum(layer_bit(kind) for kind in kinds)
    return (expression_regions(keypoints, height, width) & np.uint8(bits)) > 0
