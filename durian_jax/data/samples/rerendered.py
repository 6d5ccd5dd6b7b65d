"""A driver for a clip that has none: the clip's own eyes, nose and mouth, re-rendered on another person.

    shape     every frame is warped by keypoints, from the clip's own face towards the other person's (`face_shape`)
    colours   skin, brows, lips and irises get the other person's colours (`face_colours`)

The motion stays: lids and lips keep their openings, irises their places in the eyes. Some drivers wear drawn glasses
that the clip's person does not wear: models must not copy them. All draws are made once per clip, so that the driver
does not flicker. The recipe is ours: arXiv 2509.17476 asks for drivers of another identity and gives none.

T frames, H x W pixels, K keypoints.
"""

import cv2
import numpy as np

from durian_jax.data.samples.views import BLANK
from durian_jax.data.sources import ClipSource, OpenClip
from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.drawn_glasses import DrawnGlasses
from durian_jax.faces.face_colours import FaceColours, face_colours, recoloured
from durian_jax.faces.face_shape import calm_frame, face_height, face_shape, moved_shape, shape_difference
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS
from durian_jax.faces.warp import spline

_ATTRIBUTES = np.uint8(sum(map(attribute_bit, ATTRIBUTE_KINDS)))


def _every(steps: dict[str, int]) -> np.ndarray:
    """Indices of every n-th point of some keypoint groups."""
    return np.concatenate([np.arange(GROUPS[name].start, GROUPS[name].stop, step) for name, step in steps.items()])


# Points that bound the driving regions.
_FEATURES = _every({"right_brow": 1, "left_brow": 1, "right_eye": 1, "left_eye": 1, "nose_bridge": 1, "nose_base": 1,
                    "outer_lips": 1})
# Knots of the warp. Neighbours on lids and lips move alike, and the contour bounds the face.
_KNOTS = _every({"right_brow": 2, "left_brow": 2, "right_eye": 4, "left_eye": 4, "nose_bridge": 1, "nose_base": 1,
                 "outer_lips": 2, "inner_lips": 5, "contour": 4})
_SMOOTH = 1e-3  # of the spline: lids and lips that touch have knots at one place
_GRID = 12  # nodes per side of the grid on which the smooth spline is evaluated before interpolation
_AROUND = 0.2  # what is re-rendered around the features, in face heights: more than any jitter of regions shows


class RerenderedDriver:
    """A clip's own features as another person's, as frames for a `View`.

    Args:
        clip: the clip.
        other: a clip of the other person.
        shape: strength of the change of shape, 0..1; above 1 it is exaggerated.
        colours: strength of the change of colours, 0..1.
        glasses: what the other person wears, or None.

    Attributes:
        margin: pixels around the view.
        keypoints: (T, K, 3) float32 of the result.

    Raises:
        DecodeError: a damaged record.
    """

    def __init__(self, clip: OpenClip, other: OpenClip, shape: float, colours: float,
                 glasses: DrawnGlasses | None = None):
        self._clip, self.margin, self._glasses = clip, clip.margin, glasses
        own = face_shape(clip.keypoints)
        difference = shape * shape_difference(own, face_shape(other.keypoints))
        self.keypoints = moved_shape(clip.keypoints, own, difference)
        self._own = clip_colours(clip)
        self._wanted = self._own.towards(clip_colours(other), colours)

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8; pixels far from the features are `BLANK`."""
        frame = self._clip.frame(index)
        height, width = frame.shape[:2]
        size = np.array([width, height], np.float32)
        source, target = (keypoints[index, :, :2] * size for keypoints in (self._clip.keypoints, self.keypoints))
        box, seen = _box(target, width, height), _box(np.concatenate([source, target]), width, height)
        picture = np.full_like(frame, BLANK)
        if box[2] and box[3]:
            painted = recoloured(frame[_inside(seen)], source, seen, self._own, self._wanted)
            warped = _warped(painted, seen, box, source, target)
            picture[_inside(box)] = warped if self._glasses is None else self._glasses.worn(warped, target - box[:2])
        return picture


def clip_colours(clip: OpenClip) -> FaceColours:
    """Measure the colours of a clip's face in its calm frame."""
    index = calm_frame(clip.keypoints)
    return face_colours(clip.frame(index), clip.keypoints[index], (clip.mask(index) & _ATTRIBUTES) > 0)


def _box(points: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part of a picture around the features of (nK, 2) points in pixels."""
    faces = points.reshape(-1, sum(part.stop - part.start for part in GROUPS.values()), 2)
    around = _AROUND * face_height(faces).max()
    features = faces[:, _FEATURES].reshape(-1, 2)
    limit = np.array([width, height])
    low = np.clip(np.floor(features.min(0) - around), 0, limit).astype(int)
    high = np.clip(np.ceil(features.max(0) + around), 0, limit).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _inside(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    left, top, width, height = box
    return slice(top, top + height), slice(left, left + width)


def _warped(picture: np.ndarray, seen: tuple[int, int, int, int], box: tuple[int, int, int, int], source: np.ndarray,
            target: np.ndarray) -> np.ndarray:
    """Warp what a frame shows in the box `seen` from (K, 2) points to others; return the box `box`."""
    left, top, width, height = box
    # Backward warp: the spline maps target positions to how far away their sources are.
    bend = spline(target[_KNOTS], source[_KNOTS] - target[_KNOTS], _SMOOTH)
    across, down = (start + (np.arange(_GRID) + 0.5) * (length / _GRID)
                    for start, length in ((left, width), (top, height)))
    grid = np.stack(np.meshgrid(across, down), -1)
    field = cv2.resize(bend(grid).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(picture, columns + field[..., 0] + (left - seen[0]), rows + field[..., 1] + (top - seen[1]),
                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def choose_other(source: ClipSource, index: int, rng: np.random.Generator, tries: int) -> int:
    """Choose a clip of another person than clip `index` shows.

    Args:
        source: where the clips are from.
        index: the clip.
        rng: source of the choice.
        tries: number of random choices; after them, the first clip of another person is taken.

    Raises:
        InputError: all clips show the same person.
    """
    identity = source.outline(index).identity
    for other in rng.integers(0, len(source), tries):
        if source.outline(int(other)).identity != identity:
            return int(other)
    for other in range(len(source)):
        if source.outline(other).identity != identity:
            return other
    raise InputError(f"expected clips of at least two people, found only {identity!r}: a driver is another person than "
                     "the one whose motion it makes; add clips of other people")
