"""Topology of a face: its keypoints, their connections, and the attributes it can wear.

The K keypoints are a named subset of MediaPipe's 478 face-mesh points. Real clips (MediaPipe) and procedural
clips use the same table, so that all later stages see one topology.

"right" and "left" are the subject's own: the right eye is on the left of the picture.
"""

import numpy as np

# Bit i of a mask pixel is set where attribute kind i covers it (see `faces.clip.Clip.masks`).
ATTRIBUTE_KINDS = ("hair", "glasses", "beard", "hat")

# Share of the picture from which an attribute counts as visible.
SHOWN_AREA = 0.002

# Regions of the driver's face that the denoiser of arXiv 2509.17476 sees.
REGION_KINDS = ("eyes", "nose", "mouth")

# Number of points in MediaPipe's face mesh, irises included.
MESH_POINTS = 478

# Groups in drawing order: name -> (closed loop?, MediaPipe indices in order along the line).
_GROUPS = {
    # Clockwise in the picture from the middle of the forehead.
    "contour": (True, (
        10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)),
    # From the outer end to the inner end, upper edge.
    "right_brow": (False, (70, 63, 105, 66, 107)),
    "left_brow": (False, (300, 293, 334, 296, 336)),
    # From the outer corner along the lower lid to the inner corner, back along the upper lid.
    "right_eye": (True, (
        33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)),
    "left_eye": (True, (
        263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)),
    # Centre, then four points on the rim.
    "right_iris": (False, (468, 469, 470, 471, 472)),
    "left_iris": (False, (473, 474, 475, 476, 477)),
    # From between the eyes down to the tip; then along the base from the right wing to the left.
    "nose_bridge": (False, (168, 6, 197, 195, 5, 4)),
    "nose_base": (False, (129, 98, 2, 327, 358)),
    # From the right corner along the lower lip to the left corner, back along the upper lip.
    "outer_lips": (True, (
        61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)),
    "inner_lips": (True, (
        78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)),
}

GROUP_NAMES = tuple(_GROUPS)

# (K,) MediaPipe index of each keypoint.
MEDIAPIPE_INDICES = np.array([i for _, indices in _GROUPS.values() for i in indices])
K = len(MEDIAPIPE_INDICES)

_starts = np.cumsum([0] + [len(indices) for _, indices in _GROUPS.values()])
# Group name -> slice into the K keypoints.
GROUPS = {name: slice(int(a), int(b)) for name, a, b in
          zip(GROUP_NAMES, _starts[:-1], _starts[1:], strict=True)}

# MediaPipe index -> index into the K keypoints.
POSITION = {int(index): position for position, index in enumerate(MEDIAPIPE_INDICES)}


def _segments(name: str) -> list[tuple[int, int]]:
    points = list(range(GROUPS[name].start, GROUPS[name].stop))
    if name.endswith("iris"):
        rim = points[1:]
        return list(zip(rim, rim[1:] + rim[:1], strict=True))
    pairs = list(zip(points[:-1], points[1:], strict=True))
    return pairs + [(points[-1], points[0])] if _GROUPS[name][0] else pairs


# Group name -> (S, 2) pairs of keypoint indices that a line joins.
SEGMENTS = {name: np.array(_segments(name)) for name in GROUP_NAMES}

# Points that expression moves least; the head's similarity pose is fitted to them.
RIGID = np.array([POSITION[i] for i in (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 2, 129, 358,
                                        127, 356, 234, 454)])
# `RIGID`, and the part of the contour that does not move with the jaw.
STILL = np.union1d(RIGID, [POSITION[i] for i in (10, 338, 297, 332, 284, 251, 389, 356, 454,
                                                 234, 127, 162, 21, 54, 103, 67, 109)])
