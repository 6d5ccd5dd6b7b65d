"""Smooth keypoint tracks, runs of usable frames, shot cuts, and a stable square box around the head.

T frames, N mesh points, in pixels of the source picture.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from durian_jax.faces.topology import GROUPS, MEDIAPIPE_INDICES
from durian_jax.faces.warp import warp_image

# The face contour (chin to hairline) takes this share of the crop's height, as in the synthetic clips. Its centre
# lies at this share of the crop's height from the top, which leaves room for hair and hats.
FACE_HEIGHT = 0.47
FACE_CENTRE = 0.54
# If the source has too little room, the face may take up to this share.
_LARGEST_FACE_HEIGHT = 0.6

# The box is fixed if the face moves by less than this share of the box's side ...
_STILL_SHIFT = 0.12
# ... and changes its size by less than this ratio.
_STILL_SCALE = 1.2
# Longest duration of a flash in seconds, and largest mean difference between the pictures before and after it (0..255).
_FLASH, _SAME_PICTURE = 0.4, 15.0

# A box that is not fixed follows the face with this time constant in seconds.
_FOLLOW_SECONDS = 0.6

_CONTOUR = MEDIAPIPE_INDICES[GROUPS["contour"]]


@dataclass(frozen=True)
class Box:
    """Square crops, one per frame: centres (T, 2) as x, y and sides (T,), in pixels."""

    centre: np.ndarray
    side: np.ndarray

    def matrix(self, frame: int, size: int) -> np.ndarray:
        """Return the (2, 3) affine map from source pixels to the pixels of a size x size crop."""
        scale = size / self.side[frame]
        return np.hstack([np.eye(2) * scale, (size / 2 - scale * self.centre[frame])[:, None]])

    def keypoints(self, points: np.ndarray) -> np.ndarray:
        """Convert (T, N, 3) source pixels to (T, N, 3) float32 in units of the crop: x, y in 0..1, depth."""
        origin = np.concatenate([self.centre - self.side[:, None] / 2, np.zeros((len(self.side), 1))], axis=1)
        return ((points - origin[:, None]) / self.side[:, None, None]).astype(np.float32)

    def crop(self, image: np.ndarray, frame: int, size: int) -> np.ndarray:
        """Return the (size, size, 3) crop of one frame; beyond the picture's edge its last pixels repeat."""
        matrix = self.matrix(frame, size)
        scale = matrix[0, 0]
        if scale < 0.5:
            # Bilinear sampling skips pixels at scales below 0.5, so average them first.
            shrink = scale * 2
            smaller = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
            ratio = np.array([smaller.shape[1] / image.shape[1], smaller.shape[0] / image.shape[0]])
            matrix = np.hstack([matrix[:, :2] / ratio, matrix[:, 2:]])
            image = smaller
        return warp_image(image, matrix, border="replicate", size=(size, size))


def face_height(points: np.ndarray) -> np.ndarray:
    """Return the height of the face contour in pixels: (..., N, 3) mesh -> (...)."""
    return np.ptp(points[..., _CONTOUR, 1], axis=-1)


def face_centre(points: np.ndarray) -> np.ndarray:
    """Return the centre x, y of the face contour's bounding box in pixels: (..., N, 3) mesh -> (..., 2)."""
    contour = points[..., _CONTOUR, :2]
    return (contour.min(axis=-2) + contour.max(axis=-2)) / 2


def smooth_track(points: np.ndarray) -> np.ndarray:
    """Remove jitter from (T, N, 3) detections without adding lag.

    Quadratic least squares over five frames (Savitzky & Golay 1964). The filter is symmetric in time, so it delays
    nothing. A blink of three frames keeps its depth.
    """
    if len(points) < 5:
        return points
    weights = np.array([-3.0, 12.0, 17.0, 12.0, -3.0]) / 35.0
    # Odd reflection keeps the slope at both ends.
    head, tail = 2 * points[:1] - points[2:0:-1], 2 * points[-1:] - points[-2:-4:-1]
    padded = np.concatenate([head, points, tail])
    return sum(w * padded[i:i + len(points)] for i, w in enumerate(weights)).astype(np.float32)


def head_box(points: np.ndarray, fps: float, height: int, width: int) -> Box:
    """Return a square box that holds the head of one uninterrupted shot.

    The box is fixed if the face stays near one place, else it follows slowly. It stays inside the picture if there
    is enough room.

    Args:
        points: (T, N, 3) mesh of every frame.
        fps: frames per second of these frames.
        height, width: size of the picture.
    """
    tall = face_height(points)
    # A yawed or pitched face is foreshortened; the head is not.
    span = np.maximum(tall, 1.05 * np.ptp(points[:, _CONTOUR, 0], axis=-1))
    centre = face_centre(points)
    middle, side = np.median(centre, axis=0), np.median(span) / FACE_HEIGHT
    still = (np.abs(centre - middle).max() < _STILL_SHIFT * side
             and np.percentile(span, 95) < _STILL_SCALE * np.percentile(span, 5))
    if still:
        centre, span = np.broadcast_to(middle, centre.shape), np.full(len(span), np.median(span))
    else:
        centre, span = _slow(centre, _FOLLOW_SECONDS * fps), _slow(span, 2 * _FOLLOW_SECONDS * fps)
    # A close-up has no room for the full margin, so the face may take more of the box, up to a limit.
    side = np.clip(min(height, width), span / _LARGEST_FACE_HEIGHT, span / FACE_HEIGHT)
    centre = centre + np.stack([np.zeros_like(side), (0.5 - FACE_CENTRE) * side], axis=1)
    size, half = np.array([width, height]), side[:, None] / 2
    inside = np.clip(centre, half, np.maximum(size - half, half))
    # The limit keeps the face at roughly the same place in the crop.
    shift = np.clip(inside - centre, -0.1 * side[:, None], 0.1 * side[:, None])
    return Box(centre + shift, side)


def _slow(track: np.ndarray, frames: float) -> np.ndarray:
    """Average over time (axis 0) with a Gaussian whose standard deviation is `frames`; adds no lag."""
    reach = int(np.ceil(3 * frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    padded = np.pad(track, [(reach, reach)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    smooth = np.apply_along_axis(lambda line: np.convolve(line, kernel / kernel.sum(), "valid"), 0, padded)
    return smooth


def scene_cuts(thumbnails: np.ndarray, fps: float) -> np.ndarray:
    """Return the frames that begin a new shot.

    At a cut, most of the picture changes at once. The change is much larger than in other frames, and it lasts.

    Args:
        thumbnails: (T, h, w, C) uint8 small copies of the frames.
        fps: frames per second.

    Returns:
        (T,) bool; frame 0 is never a cut.
    """
    cuts = np.zeros(len(thumbnails), bool)
    if len(thumbnails) < 2:
        return cuts
    # Pair by pair, to save memory: an hour of video has 90,000 frames.
    change = np.array([cv2.absdiff(before, after).mean() for before, after in pairwise(thumbnails)])
    cuts[1:] = change > np.maximum(20.0, 6 * np.median(change))
    near = max(2, round(_FLASH * fps))
    for frame in np.flatnonzero(cuts):
        before, after = (thumbnails[part].astype(np.float32)
                         for part in (slice(max(frame - near, 0), frame), slice(frame, frame + near)))
        # After a flash the picture is the same as before.
        cuts[frame] = np.abs(before[:, None] - after).mean(axis=(2, 3, 4)).min() > _SAME_PICTURE
    return cuts


def frame_ranges(usable: np.ndarray, cuts: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Return the ranges of usable frames that no shot cut interrupts.

    Args:
        usable: (T,) bool.
        cuts: (T,) bool, True for the first frame of a new shot; None: one shot.

    Returns:
        (first, last + 1) frame indices, in order.
    """
    found, start = [], None
    for frame in range(len(usable) + 1):
        ends = frame == len(usable) or not usable[frame] or (cuts is not None and cuts[frame])
        if start is not None and ends:
            found.append((start, frame))
            start = None
        if frame < len(usable) and usable[frame] and start is None:
            start = frame
    return found


def shot_cuts(thumbnails: np.ndarray, fps: float, centres: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the frames that begin a new shot: those of `scene_cuts`, and those where the tracked face jumps.

    Args:
        thumbnails: (T, h, w, C) uint8 small copies of the frames.
        fps: frames per second.
        centres: (T, 2) centre of the face in pixels, NaN without a face.
        heights: (T,) height of the face in pixels, NaN without a face.

    Returns:
        (T,) bool; frame 0 is never a cut.
    """
    cuts = scene_cuts(thumbnails, fps)
    with np.errstate(invalid="ignore"):
        jump = np.linalg.norm(np.diff(centres, axis=0), axis=1) > 0.5 * heights[1:]
        growth = np.abs(np.diff(np.log(heights))) > 0.35
    cuts[1:] |= jump | growth
    return cuts
