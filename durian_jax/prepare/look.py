"""A quick look at a photo or a video: its face in some frames, and small copies of all, for `prepare.check`.

S is the number of frames that the face mesh sees, T of all.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from durian_jax.faces import quality
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import GROUPS, MEDIAPIPE_INDICES
from durian_jax.prepare.client import Annotator
from durian_jax.prepare.crop import FACE_CENTRE, FACE_HEIGHT, Box, face_centre, face_height, head_box, runs, shot_cuts
from durian_jax.prepare.track import MIN_FACE_HEIGHT
from durian_jax.video import iterate_video, probe_video, read_image

# A long video shows its face mesh in about so many frames, evenly spread, and in all of the first ones.
_LOOKS, _FIRST = 112, 8
# Every so-manieth of them, all faces are counted.
_COUNT = 16
# The mesh says so many degrees of pitch of a face that looks straight ahead (middle of 30 real people).
_LEVEL_PITCH = -7.0
# The face is cut out at this size, of which it takes half.
_CROP = 256


@dataclass(frozen=True)
class Look:
    """What was seen of a file; a photo is a video of one frame.

    Attributes:
        index: (S,) numbers of the frames that the face mesh saw.
        points: (S, 478, 3) in pixels, NaN without a face.
        crops: (S, C, C, 3) uint8, the face in the middle; black without one.
        keypoints: (S, K, 3) in the crops.
        others: frame number -> height of the second largest face, 0 for none; for some frames.
        thumbnails: (T, h, w, 3) uint8 of all frames.
        fps: 0 for a photo.
        height, width: of the picture.
        head_cut: the head touches the upper edge (photos).
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
    head_cut: bool = False

    def __len__(self) -> int:
        return len(self.thumbnails)

    @property
    def seen(self) -> np.ndarray:
        """(S,) bool: frames with a face that `durian animate` takes."""
        x, y = np.nan_to_num(face_centre(self.points), nan=-1).T
        with np.errstate(invalid="ignore"):
            large = face_height(self.points) >= MIN_FACE_HEIGHT
        return large & (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)

    @property
    def stride(self) -> int:
        """Distance of the frames looked at, the first ones apart."""
        return int(np.diff(self.index).max()) if len(self.index) > 1 else 1

    def ranges(self, flags: np.ndarray) -> tuple[tuple[int, int], ...]:
        """(S,) bool -> ranges of frames; each frame looked at stands for those up to the next one."""
        edges = np.append(self.index, len(self))
        return tuple((int(edges[a]), int(edges[b])) for a, b in runs(flags, np.zeros(len(flags), bool)))


def look_at_photo(path: str | Path, worker: Annotator) -> Look:
    """Reads a photo.

    Raises:
        InputError: no readable picture.
    """
    image = read_image(path)
    points = worker.mesh(image)
    worker.reset()
    return _gather([_sample(0, image, points, worker, True)], [_thumbnail(image)], 0.0, image.shape,
                   points is not None and _head_cut(image, points, worker))


def look_at_video(path: str | Path, worker: Annotator) -> Look:
    """Reads a video to its end.

    Raises:
        InputError: no readable video, or one that is damaged or cut off.
    """
    info = probe_video(path)
    stride = max(1, -(-info.declared_frames // _LOOKS))
    worker.reset()
    samples, thumbnails, shape = [], [], None
    bar = tqdm(iterate_video(path), total=info.declared_frames or None, desc=f"looking at {Path(path).name}",
               unit="frame", leave=False, delay=2)
    for number, image in enumerate(bar):
        thumbnails.append(_thumbnail(image))
        if number >= _FIRST and number % stride:
            continue
        shape = image.shape
        # Tracking goes from frame to frame; over larger steps it would follow the wrong thing.
        points = worker.mesh(image, tracked=stride == 1)
        samples.append(_sample(number, image, points, worker, len(samples) % _COUNT == 0))
        if len(samples) > _LOOKS + _FIRST:
            # Longer than its header said, if it said anything.
            stride *= 2
            samples = [sample for sample in samples if sample[0] < _FIRST or sample[0] % stride == 0]
    if samples[-1][0] != number:
        # Title cards come last.
        samples.append(_sample(number, image, worker.mesh(image), worker, False))
    return _gather(samples, thumbnails, info.fps, shape)


def _sample(number: int, image: np.ndarray, points: np.ndarray | None, worker: Annotator, count: bool) -> tuple:
    """Frame number, mesh, crop, keypoints in the crop, and the second largest face's height (None: not looked for)."""
    if points is None:
        nothing = np.full((478, 3), np.nan, np.float32)
        return number, nothing, np.zeros((_CROP, _CROP, 3), np.uint8), nothing[MEDIAPIPE_INDICES], None
    side = 2 * np.ptp(points[MEDIAPIPE_INDICES[GROUPS["contour"]], :2], axis=0).max()
    box = Box(face_centre(points)[None], np.array([max(side, 1.0)]))
    keypoints = box.keypoints(points[None, MEDIAPIPE_INDICES])[0]
    other = sorted([0.0, 0.0, *map(float, face_height(worker.meshes(image)))])[-2] if count else None
    return number, points, box.crop(image, 0, _CROP), keypoints, other


def _head_cut(image: np.ndarray, points: np.ndarray, worker: Annotator) -> bool:
    """Whether the person above the face reaches the picture's upper edge."""
    (x, y), tall = face_centre(points), face_height(points)
    side = tall / FACE_HEIGHT
    left, right = max(int(x - side / 2), 0), int(x + side / 2)
    if y - FACE_CENTRE * side > 0 or x <= 0 or x >= image.shape[1] or y <= 0:
        return False
    head = image[:int(y + side / 2), left:right]
    person = worker.person(cv2.resize(head, (256, 256), interpolation=cv2.INTER_AREA))
    columns = (np.arange(256) + 0.5) / 256 * head.shape[1] + left
    return bool((person[:4, np.abs(columns - x) < 0.3 * tall] > 128).mean() > 0.3)


def _gather(samples: list[tuple], thumbnails: list[np.ndarray], fps: float, shape: tuple[int, ...],
            head_cut: bool = False) -> Look:
    index, points, crops, keypoints, others = zip(*samples, strict=True)
    return Look(np.array(index), np.stack(points), np.stack(crops), np.stack(keypoints),
                 {number: other for number, other in zip(index, others, strict=True) if other is not None},
                 np.stack(thumbnails), fps, *shape[:2], head_cut)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    # Every pixel of a large frame would take longer than decoding it.
    step = max(1, min(image.shape[:2]) // 160)
    return cv2.resize(image[::step, ::step], (32, 32), interpolation=cv2.INTER_AREA)


# --- what the frames show ------------------------------------------------------------------------------

def measure(look: Look) -> dict[str, np.ndarray]:
    """(S,) values by name, NaN where no face is seen.

    Lengths in pixels; headroom and distance to the picture's edge in face heights; angles in degrees, all 0 for a
    face that looks straight ahead; the others as in `faces.quality`.
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
    """(T,) bool: frames that begin a new shot."""
    centres, heights = np.full((len(look), 2), np.nan), np.full(len(look), np.nan)
    centres[look.index], heights[look.index] = face_centre(look.points), face_height(look.points)
    return shot_cuts(look.thumbnails, look.fps, centres, heights)


def faceless(look: Look, missing: np.ndarray, cuts: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Ranges of frames without a face: from the cut or else the last face before it, up to the next face."""
    ranges = []
    for first, last in runs(missing, np.zeros(len(missing), bool)):
        begin = look.index[first - 1] + 1 if first else 0
        cut = np.flatnonzero(cuts[begin:look.index[first] + 1])
        end = look.index[last] if last < len(missing) else len(look)
        ranges.append((int(begin + (cut[0] if len(cut) else 0)), int(end)))
    return tuple(ranges)


def outside_crop(look: Look, cuts: np.ndarray) -> np.ndarray:
    """(S,) bool: the face is not wholly in the crop that follows it."""
    outside = np.zeros(len(look.index), bool)
    even = np.flatnonzero(look.index % look.stride == 0)
    new_shot = np.diff(np.cumsum(cuts)[look.index[even]], prepend=0) > 0
    for first, last in runs(look.seen[even], new_shot):
        points = look.points[even[first:last]]
        box = head_box(points, look.fps / look.stride, look.height, look.width)
        face = box.keypoints(points)[:, MEDIAPIPE_INDICES[GROUPS["contour"]], :2]
        outside[even[first:last]] = ((face < 0) | (face > 1)).any(axis=(1, 2))
    return outside
