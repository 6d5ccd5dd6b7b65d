"""Simple drawn glasses for any face, so that models learn not to copy the glasses of a driver.

H x W pixels, K keypoints.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from durian_jax.faces.topology import GROUPS, POSITION

_TEMPLES = (POSITION[127], POSITION[356])
_APART = 0.45  # largest half width of a lens with its rim, in distances between the eyes
_THINNEST = 1.5  # pixels of a rim; thinner ones look dashed
_CORNERS = 24  # corners of a lens's outline


@dataclass(frozen=True)
class DrawnGlasses:
    """Glasses; lengths are in widths of an eye.

    Attributes:
        width, height: half the size of a lens.
        square: 0 an ellipse, 1 nearly a rectangle.
        rim: thickness of the rim.
        colour: (3,) RGB of the rim, 0..255.
        tint: (3,) RGB of the lenses, 0..255.
        opacity: of the lenses, 0..1.
    """

    width: float
    height: float
    square: float
    rim: float
    colour: np.ndarray
    tint: np.ndarray
    opacity: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "DrawnGlasses":
        """Draw glasses at random. The lenses are nearly clear: eyes stay visible."""
        dark = rng.random() < 0.6
        return cls(rng.uniform(0.75, 0.95), rng.uniform(0.5, 0.85), rng.random(), rng.uniform(0.06, 0.2),
                   rng.uniform(0, 70, 3) if dark else rng.uniform(0, 255, 3), rng.uniform(0, 255, 3),
                   rng.uniform(0, 0.25))

    def worn(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Put the glasses onto a face.

        Args:
            picture: (H, W, 3) uint8.
            points: (K, 2) keypoints in pixels of the picture.

        Returns:
            (H, W, 3) uint8.
        """
        eyes = [points[GROUPS[name]] for name in ("right_eye", "left_eye")]
        # From the outer to the inner corner. Lids move when the eyes blink, corners do not.
        across = [eye[8] - eye[0] for eye in eyes]
        unit = float(max(max(np.linalg.norm(x) for x in across), 1.0))
        rim = max(self.rim * unit, _THINNEST)
        # Lenses do not touch, and drawn faces have large eyes.
        apart = float(np.linalg.norm((eyes[0][0] + eyes[0][8] - eyes[1][0] - eyes[1][8]) / 2))
        most = max(_APART * apart - rim, 0.5)
        lenses, bars, ends = np.zeros((2, *picture.shape[:2]), np.uint8), [], []
        for eye, direction, temple in zip(eyes, across, _TEMPLES, strict=True):
            # A turned lens is narrower, as the eye is.
            length = float(np.linalg.norm(direction))
            width = min(self.width * length, most)
            inwards = direction / max(length, 1e-6)
            centre = (eye[0] + eye[8]) / 2
            for place, wider in enumerate((rim, 0.0)):
                outline = self._outline(width + wider, min(self.height * unit, most) + wider)
                _fill(lenses[place], centre + outline @ np.stack([inwards, (-inwards[1], inwards[0])]))
            inner, outer = (centre + sign * inwards * width for sign in (1, -1))
            ends.append(inner)
            # An arm is seen only where the temple is further out than the lens.
            if (points[temple] - outer) @ inwards < 0:
                bars.append((outer, points[temple]))
        bars.append((ends[0], ends[1]))
        frame = cv2.subtract(lenses[0], lenses[1])
        for start, end in bars:
            _fill(frame, _bar(start, end, rim))
        painted = picture.astype(np.float32)
        for mask, colour, opacity in ((lenses[1], self.tint, self.opacity), (frame, self.colour, 1.0)):
            painted += (mask[..., None] * np.float32(opacity / 255)) * (colour.astype(np.float32) - painted)
        return np.rint(painted).astype(np.uint8)

    def _outline(self, width: float, height: float) -> np.ndarray:
        """(corners, 2) of a lens around (0, 0): a superellipse."""
        angles = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
        directions = np.stack([np.cos(angles), np.sin(angles)], 1)
        return np.sign(directions) * np.abs(directions) ** (1 - 0.6 * self.square) * (width, height)


def _bar(start: np.ndarray, end: np.ndarray, thickness: float) -> np.ndarray:
    """(4, 2) outline of a straight bar."""
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    aside = np.array([-along[1], along[0]]) * thickness / 2
    return np.stack([start - aside, start + aside, end + aside, end - aside])


def _fill(mask: np.ndarray, outline: np.ndarray) -> None:
    """Fill a polygon of (N, 2) points in an (H, W) uint8 mask, antialiased: it moves smoothly from frame to frame."""
    cv2.fillPoly(mask, [np.rint((outline - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
