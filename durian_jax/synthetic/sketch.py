"""Polygons and lines in painting order, and the canvas on which they are painted.

The canvas has four channels: RGB and a label (0, or 1 + the index of the attribute kind that the pixel shows).
Painting colour and label in one call keeps masks and pixels consistent.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic.colours import Colour
from durian_jax.synthetic.geometry import ZOOM, Points, join, project, smooth
from durian_jax.synthetic.motion import Motion

LABEL = {"": 0, **{kind: 1 + i for i, kind in enumerate(ATTRIBUTE_KINDS)}}
_BITS = 4  # fractional bits of OpenCV's coordinates


@dataclass
class _Stroke:
    start: int
    stop: int
    colour: tuple[float, ...]
    thickness: float  # picture widths; 0 fills the polygon
    closed: bool
    opacity: float


class Sketch:
    """Strokes in painting order; `label` is the attribute kind of the strokes that follow."""

    def __init__(self):
        self.label = ""
        self._points: list[Points] = []
        self._strokes: list[_Stroke] = []
        self._count = 0

    def _add(self, points: Points, colour: Colour, thickness: float, closed: bool, opacity: float) -> None:
        self._points.append(points)
        start, self._count = self._count, self._count + len(points)
        paint = (*colour, LABEL[self.label])
        self._strokes.append(_Stroke(start, self._count, paint, thickness, closed, opacity))

    def fill(self, points: Points, colour: Colour, curved: bool = True, opacity: float = 1.0) -> None:
        """Add a filled polygon, or the filled closed curve through its points."""
        self._add(smooth(points) if curved else points, colour, 0.0, True, opacity)

    def line(self, points: Points, colour: Colour, thickness: float, closed: bool = False,
             curved: bool = True) -> None:
        """Add a line of `thickness` picture widths."""
        self._add(smooth(points, closed) if curved else points, colour, thickness, closed, 1.0)

    def paint(self, backdrop: np.ndarray, motion: Motion):
        """Yield one (S, S, 4) uint8 canvas per frame; every frame reuses the same array."""
        size = len(backdrop)
        # OpenCV counts from the first pixel's centre.
        flat = project(join(*self._points), motion)[..., :2] * size - 0.5
        fixed = np.round(flat * (1 << _BITS)).astype(np.int32)
        low, high = np.floor(flat).astype(np.int32), np.ceil(flat).astype(np.int32)
        canvas = np.empty_like(backdrop)
        for frame, points in enumerate(fixed):
            np.copyto(canvas, backdrop)
            for stroke in self._strokes:
                part = points[stroke.start:stroke.stop]
                if stroke.thickness:
                    thickness = max(1, round(stroke.thickness * size * ZOOM * float(motion.scale[frame])))
                    cv2.polylines(canvas, [part], stroke.closed, stroke.colour, thickness, cv2.LINE_8, _BITS)
                elif stroke.opacity == 1.0:
                    cv2.fillPoly(canvas, [part], stroke.colour, cv2.LINE_8, _BITS)
                else:
                    x0, y0 = np.maximum(low[frame, stroke.start:stroke.stop].min(0), 0)
                    x1, y1 = high[frame, stroke.start:stroke.stop].max(0) + 1
                    _glaze(canvas[y0:y1, x0:x1], part - (np.array([x0, y0], np.int32) << _BITS), stroke)
            yield canvas


def _glaze(region: np.ndarray, points: np.ndarray, stroke: _Stroke) -> None:
    """Paint a translucent polygon; from opacity 0.5 it also sets the label."""
    if region.size == 0:
        return
    over = region.copy()
    cv2.fillPoly(over, [points], stroke.colour, cv2.LINE_8, _BITS)
    label = (over if stroke.opacity >= 0.5 else region)[..., 3].copy()
    cv2.addWeighted(over, stroke.opacity, region, 1 - stroke.opacity, 0, dst=region)
    region[..., 3] = label
