"""Squares in pictures: where a model looks, and the way back.

Coordinates are pixels (x, y); the centre of the first pixel lies at (0.5, 0.5).
"""

from dataclasses import dataclass

import cv2
import numpy as np

# A face's square is larger than its box by this factor (MediaPipe's graphs).
_ENLARGEMENT = 1.5


@dataclass(frozen=True)
class Square:
    """A square in a picture.

    Attributes:
        centre: (2,) its centre in pixels.
        side: its side in pixels.
        angle: its rotation in radians; positive turns x towards y.
    """

    centre: np.ndarray
    side: float
    angle: float = 0.0

    def cut(self, image: np.ndarray, size: int, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        """Return the (size, size, 3) uint8 content of the square, bilinear; `border` is OpenCV's mode outside."""
        half = self.side / 2 * self._turn()
        corners = [self.centre + half @ corner for corner in ([-1, 1], [-1, -1], [1, -1], [1, 1])]
        places = np.array([[0, size], [0, 0], [size, 0], [size, size]], np.float32)
        matrix = cv2.getPerspectiveTransform(np.array(corners, np.float32), places)
        return cv2.warpPerspective(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)

    def points(self, inside: np.ndarray) -> np.ndarray:
        """Return points of the square as points of the picture.

        Args:
            inside: (N, 2) or (N, 3) points; the square reaches from 0 to 1. The third coordinate is a depth.
        """
        placed = np.array(inside, np.float64) * self.side
        placed[:, :2] = self.centre + (placed[:, :2] - self.side / 2) @ self._turn().T
        return placed.astype(np.float32)

    def _turn(self) -> np.ndarray:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])


def face_square(low: np.ndarray, high: np.ndarray, eyes: np.ndarray) -> Square:
    """The square in which the mesh of a face is found.

    Args:
        low, high: (2,) corners of the face's box.
        eyes: (2, 2) the eye on the left of the picture and the other one; their line becomes horizontal.
    """
    across = eyes[1] - eyes[0]
    return Square((low + high) / 2, float(np.max(high - low)) * _ENLARGEMENT, float(np.arctan2(across[1], across[0])))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The intersection over the union of two boxes (x0, y0, x1, y1)."""
    sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return 0.0
    shared = float(np.prod(sides))
    return shared / (float(np.prod(a[2:4] - a[:2])) + float(np.prod(b[2:4] - b[:2])) - shared)
