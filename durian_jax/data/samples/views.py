"""Frames of a clip at the batch's scale, for samples of any family.

H x W pixels, K keypoints.
"""

import cv2
import numpy as np

from durian_jax.data.sources import OpenClip
from durian_jax.faces.clip import view_keypoints
from durian_jax.faces.warp import warp_image, warp_nearest

# Mid grey, which models see as 0.
BLANK = 128


class View:
    """One frame of a clip at the batch's scale, with its margin.

    Attributes:
        margin: pixels around the view at this scale.
        keypoints: (K, 3) float32 in units of the view.
    """

    def __init__(self, clip: OpenClip, index: int, size: int):
        self._clip, self._index, self._size = clip, index, size
        self._frame = clip.frame(index)
        stored = self._frame.shape[0]
        inner = stored - 2 * clip.margin
        self.margin = round(clip.margin * size / inner)
        self._side = size + 2 * self.margin
        if stored != self._side:
            self._frame = cv2.resize(self._frame, (self._side, self._side), interpolation=cv2.INTER_AREA)
        self.keypoints = view_keypoints(clip.keypoints[index], inner, inner, clip.margin)

    def frame(self) -> np.ndarray:
        """(size, size, 3) uint8."""
        return self._inside(self._frame)

    def mask(self) -> np.ndarray:
        """(size, size) uint8 bit field."""
        return self._inside(self._field())

    def moved(self, layers: int, move: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move the view by a (2, 3) matrix. The margin fills its border; beyond the margin the edge is repeated.

        Returns:
            (size, size, 3) uint8, and (size, size) uint8: the share of each pixel that the mask bits `layers` cover,
            255 for all of it.
        """
        mask = ((self._field() & np.uint8(layers)) > 0).view(np.uint8) * np.uint8(255)
        if np.array_equal(move, np.eye(2, 3)):
            return self.frame(), self._inside(mask)
        # Four channels warp in less than half the time of three (benchmarks/data.py); the fourth carries the mask.
        packed = cv2.cvtColor(self._frame, cv2.COLOR_RGB2RGBA)
        cv2.insertChannel(mask, packed, 3)
        packed = warp_image(packed, self._from_stored(move), "replicate", (self._size, self._size))
        return cv2.cvtColor(packed, cv2.COLOR_RGBA2RGB), cv2.extractChannel(packed, 3)

    def moved_field(self, move: np.ndarray, layers: int) -> np.ndarray:
        """(size, size) uint8: the mask bits `layers` under the same move, by nearest neighbour."""
        field, size = self._field() & np.uint8(layers), (self._size, self._size)
        return warp_nearest(field, self._from_stored(move), size) if field.any() else np.zeros(size, np.uint8)

    def _field(self) -> np.ndarray:
        if not hasattr(self, "_bits"):
            bits = self._clip.mask(self._index)
            # Bits cannot be averaged: nearest neighbour.
            self._bits = bits if bits.shape[0] == self._side else cv2.resize(
                bits, (self._side, self._side), interpolation=cv2.INTER_NEAREST_EXACT)
        return self._bits

    def _inside(self, picture: np.ndarray) -> np.ndarray:
        return picture[self.margin:self.margin + self._size, self.margin:self.margin + self._size]

    def _from_stored(self, move: np.ndarray) -> np.ndarray:
        shift = move[:, :2] @ np.full(2, -float(self.margin))
        return np.concatenate([move[:, :2], (move[:, 2] + shift)[:, None]], 1)


def blanked(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with `BLANK` in the (H, W) bool region."""
    return cv2.copyTo(image, (~region).view(np.uint8), np.full_like(image, BLANK))
