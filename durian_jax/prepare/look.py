"""Sample the face of a photo or a video in some frames, and thumbnails of all frames, for `prepare.check`.

S is the number of frames sampled for the face mesh, T the number of all frames.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.faces import quality
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import GROUPS, MEDIAPIPE_INDICES
from durian_jax.images import turned
from durian_jax.prepare.crop import (
    FACE_CENTRE,
    FACE_HEIGHT,
    Box,
    face_centre,
    face_height,
    frame_ranges,
    head_box,
    shot_cuts,
)
from durian_jax.prepare.track import MIN_FACE_HEIGHT
from durian_jax.progress import SHORT, progress_bar
from durian_jax.video import check_length, iterate_video, probe_video, read_image

# A long video is sampled at about this many evenly spaced frames, and at all of the first frames.
_LOOKS, _FIRST = 112, 8
# The mesh measures this pitch, in degrees, on a face that looks straight ahead (median of 30 real people).
_LEVEL_PITCH = -7.0
# Only the beginning of a longer video is read, so that a check takes seconds. Pixels are those of all frames together.
_MOST_FRAMES, _MOST_PIXELS = 4000, 1_500_000_000
# Side of the face crops in pixels; the face takes half of it.
_CROP = 256


@dataclass(frozen=True)
class Look:
    """Sampled faces and thumbnails of a file; a photo is a video of one frame.

    Attributes:
        index: (S,) numbers of the sampled frames.
        points: (S, 478, 3) in pixels, NaN without a face.
        crops: (S, C, C, 3) uint8, centred on the face; black without a face.
        keypoints: (S, K, 3) in units of the crops.
        others: frame number -> height of the second largest face in pixels, 0 without one.
        thumbnails: (T, h, w, 3) uint8 of all frames.
        fps: frames per second; 0 for a photo.
        height, width: size of the picture in pixels.
        turns: quarter turns to the left that made the file upright.
        hdr: HDR colours that became ordinary ones, as in `video.VideoInfo`.
        head_cut: whether the head touches the upper edge (photos only).
        total: number of frames of the file; T is less if only the beginning of a long video was read.
    """

    index: np.ndarray
    points: np.ndarray
    crops: np.ndarray
    keypoints: np.ndarray
    others: dict[int, float]
    thumbnails: np.ndarray
    fps: float
    height: int
    width: int
    turns: int = 0
    head_cut: bool = False
    hdr: str = ""
    total: int = 1

    def __len__(self) -> int:
        return len(self.thumbnails)

    @property
    def seen(self) -> np.ndarray:
        """(S,) bool: frames with a face that `durian animate` accepts."""
        x, y = np.nan_to_num(face_centre(self.points), nan=-1).T
        with np.errstate(invalid="ignore"):
            large = face_height(self.points) >= MIN_FACE_HEIGHT
        return large & (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)

    @property
    def stride(self) -> int:
        """Distance between sampled frames after the first ones."""
        return int(np.diff(self.index).max()) if len(self.index) > 1 else 1

    def ranges(self, flags: np.ndarray) -> tuple[tuple[int, int], ...]:
        """Convert (S,) bool to ranges of frames; a sampled frame stands for all frames up to the next sample."""
        edges = np.append(self.index, len(self))
        return tuple((int(edges[a]), int(edges[b])) for a, b in frame_ranges(flags))


def look_at_photo(path: str | Path, annotator: Annotator) -> Look:
    """Return the `Look` of a photo.

    Raises:
        InputError: the picture is unreadable.
    """
    image = read_image(path)
    turns = annotator.turn(image)
    image = turned(image, turns)
    faces = annotator.faces(image)
    return _gather([_sample(0, image, faces)], [_thumbnail(image)], 0.0, image.shape, turns,
                   len(faces) > 0 and _head_cut(image, faces[0], annotator))


def look_at_video(path: str | Path, annotator: Annotator) -> Look:
    """Read a video, the beginning of a long one, and return its `Look`.

    Raises:
        InputError: the video is unreadable, too large or too long (`video.limits`), damaged or cut off.
    """
    info = probe_video(path)
    check_length(path, info.fps, info.declared_frames)
    most = min(_MOST_FRAMES, max(_LOOKS, _MOST_PIXELS // max(1, info.height * info.width)))
    count = min(info.declared_frames, most)
    stride = max(1, -(-count // _LOOKS))
    turns = annotator.turn(next(iterate_video(path, 1)))
    annotator.reset()
    samples, thumbnails, shape = [], [], None
    bar = progress_bar(iterate_video(path, most), total=count or None, desc=f"looking at {Path(path).name}",
                       unit="frame", leave=False, delay=SHORT)
    for number, image in enumerate(bar):
        image = turned(image, turns)
        thumbnails.append(_thumbnail(image))
        if number >= _FIRST and number % stride:
            continue
        shape = image.shape
        if stride > 1:  # Tracking needs consecutive frames; over larger steps it may follow a wrong object.
            annotator.reset()
        samples.append(_sample(number, image, annotator.follow(image)))
        if len(samples) > _LOOKS + _FIRST:
            # The video is longer than its header declares, or the header declares no length.
            stride *= 2
            samples = [sample for sample in samples if sample[0] < _FIRST or sample[0] % stride == 0]
    if samples[-1][0] != number:
        # Sample the last frame too, because title cards without a face come last.
        annotator.reset()
        samples.append(_sample(number, image, annotator.follow(image)))
    return replace(_gather(samples, thumbnails, info.fps, shape, turns), hdr=info.hdr,
                   total=max(info.declared_frames, len(thumbnails)) if len(thumbnails) == most else len(thumbnails))


def _sample(number: int, image: np.ndarray, faces: np.ndarray) -> tuple:
    """Return frame number, mesh, crop, keypoints in the crop, second largest face's height (None: no face)."""
    if not len(faces):
        nothing = np.full((478, 3), np.nan, np.float32)
        return number, nothing, np.zeros((_CROP, _CROP, 3), np.uint8), nothing[MEDIAPIPE_INDICES], None
    heights = face_height(faces)
    points, other = faces[int(heights.argmax())], float(sorted([0.0, *heights])[-2])
    side = 2 * np.ptp(points[MEDIAPIPE_INDICES[GROUPS["contour"]], :2], axis=0).max()
    box = Box(face_centre(points)[None], np.array([max(side, 1.0)]))
    keypoints = box.keypoints(points[None, MEDIAPIPE_INDICES])[0]
    return number, points, box.crop(image, 0, _CROP), keypoints, other


def _head_cut(image: np.ndarray, points: np.ndarray, annotator: Annotator) -> bool:
    """Return whether the person's head reaches the picture's upper edge."""
    (x, y), tall = face_centre(points), face_height(points)
    side = tall / FACE_HEIGHT
    left, right = max(int(x - side / 2), 0), int(x + side / 2)
    if y - FACE_CENTRE * side > 0 or x <= 0 or x >= image.shape[1] or y <= 0:
        return False
    head = image[:int(y + side / 2), left:right]
    person = annotator.person(cv2.resize(head, (256, 256), interpolation=cv2.INTER_AREA))
    columns = (np.arange(256) + 0.5) / 256 * head.shape[1] + left
    return bool((person[:4, np.abs(columns - x) < 0.3 * tall] > 128).mean() > 0.3)


def _gather(samples: list[tuple], thumbnails: list[np.ndarray], fps: float, shape: tuple[int, ...],
            turns: int, head_cut: bool = False) -> Look:
    index, points, crops, keypoints, others = zip(*samples, strict=True)
    return Look(np.array(index), np.stack(points), np.stack(crops), np.stack(keypoints),
                {number: other for number, other in zip(index, others, strict=True) if other is not None},
                np.stack(thumbnails), fps, *shape[:2], turns, head_cut)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    # Averaging all pixels of a large frame would take longer than decoding it.
    step = max(1, min(image.shape[:2]) // 160)
    return cv2.resize(image[::step, ::step], (32, 32), interpolation=cv2.INTER_AREA)


# --- measures ------------------------------------------------------------------------------------------

def measure(look: Look) -> dict[str, np.ndarray]:
    """Return (S,) values by name, NaN without a face.

    Lengths are in pixels. Headroom and the distance to the picture's edge are in face heights. Angles are in degrees,
    all 0 for a face that looks straight ahead. The other values are as in `faces.quality`.
    """
    seen = look.seen
    points, crops, keypoints = look.points[seen], look.crops[seen], look.keypoints[seen]
    contour = points[:, MEDIAPIPE_INDICES[GROUPS["contour"]], :2]
    low, high, tall = contour.min(axis=1), contour.max(axis=1), face_height(points)
    yaw, pitch, roll = head_pose(points[:, MEDIAPIPE_INDICES]).T
    light, white = quality.exposure(crops, keypoints).T
    found = {
        "face_height": tall, "largest_model": np.maximum(tall, 1.05 * (high - low)[:, 0]) / FACE_HEIGHT,
        "headroom": low[:, 1] / tall,
        "edge": np.minimum(low, (look.width, look.height) - high).min(axis=1) / tall,
        "yaw": yaw, "pitch": pitch - _LEVEL_PITCH, "roll": roll,
        "sharpness": quality.sharpness(crops, keypoints), "light": light, "white": white,
        "eyes": quality.eye_openness(keypoints).mean(axis=1), "mouth": quality.mouth_openness(keypoints),
        "lips": quality.lips_evidence(crops, keypoints), "occlusion": quality.occlusion(crops, keypoints),
    }
    values = {name: np.full(len(seen), np.nan) for name in found}
    for name, value in found.items():
        values[name][seen] = value
    return values


def find_cuts(look: Look) -> np.ndarray:
    """Return (T,) bool: frames that begin a new shot."""
    centres, heights = np.full((len(look), 2), np.nan), np.full(len(look), np.nan)
    centres[look.index], heights[look.index] = face_centre(look.points), face_height(look.points)
    return shot_cuts(look.thumbnails, look.fps, centres, heights)


def faceless(look: Look, missing: np.ndarray, cuts: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return ranges of frames without a face: from the cut after the last face, or from that face, to the next one."""
    ranges = []
    for first, last in frame_ranges(missing):
        begin = look.index[first - 1] + 1 if first else 0
        cut = np.flatnonzero(cuts[begin:look.index[first] + 1])
        end = look.index[last] if last < len(missing) else len(look)
        ranges.append((int(begin + (cut[0] if len(cut) else 0)), int(end)))
    return tuple(ranges)


def outside_crop(look: Look, cuts: np.ndarray) -> np.ndarray:
    """Return (S,) bool: frames in which the crop cuts off a part of the face that it follows."""
    outside = np.zeros(len(look.index), bool)
    even = np.flatnonzero(look.index % look.stride == 0)
    new_shot = np.diff(np.cumsum(cuts)[look.index[even]], prepend=0) > 0
    for first, last in frame_ranges(look.seen[even], new_shot):
        points = look.points[even[first:last]]
        box = head_box(points, look.fps / look.stride, look.height, look.width)
        face = box.keypoints(points)[:, MEDIAPIPE_INDICES[GROUPS["contour"]], :2]
        outside[even[first:last]] = ((face < 0) | (face > 1)).any(axis=(1, 2))
    return outside
