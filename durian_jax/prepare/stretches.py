"""Cut the crops of a person out of a video, and find keypoints and masks in them.

T frames. Memory holds only the pictures of the clips that are being cut.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.errors import InputError
from durian_jax.faces.clip import MASK_LAYERS, Clip, attribute_bit, layer_bit
from durian_jax.faces.regions import expression_regions
from durian_jax.faces.topology import MEDIAPIPE_INDICES
from durian_jax.prepare.attributes import NO_EVIDENCE, Evidence
from durian_jax.prepare.crop import Box, face_centre, face_height, head_box
from durian_jax.prepare.maskers import Masker, default_masker
from durian_jax.prepare.track import Faces, Run

# Masks are made at a size in this range, in pixels per side. The person detector works at 256 pixels. The maskers'
# memory grows with the square of the size.
_MASK_SIZES = (256, 320)

# (frame number, counted from the first frame read; height; width) -> user-made (H, W) bool masks of the source
# picture, by kind.
SuppliedMasks = Callable[[int, int, int], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Crop:
    """How pictures are cropped and annotated.

    Attributes:
        size: side of the square view in pixels.
        margin: pixels kept on each side around the view.
        masker: finds the pixels of each attribute. None: no masks of attributes or of the person, which is faster.
        known: attribute kinds that the person certainly wears (see `Masker`); None: judge all kinds from the pixels.
    """

    size: int = 128
    margin: int = 0
    masker: Masker | None = default_masker
    known: tuple[str, ...] | None = None

    def __post_init__(self):
        for kind in self.known or ():
            attribute_bit(kind)
        if self.known and self.masker is None:
            raise InputError(f"expected a masker to find {', '.join(self.known)}, found none; leave out masker=None")


@dataclass
class Stretch:
    """Frames of a run that become one clip, with the crops cut so far.

    Attributes:
        run: the face's run.
        frames: (T,) frame numbers in the video, ascending. A frame without a face has the number of the nearest one
            with a face.
        box: T crop boxes of the pictures.
        view: T crop boxes of the points; they differ from `box` in frames without a face.
        points: (T, 478, 3) float32, smoothed.
        fps: frames per second of the clip.
        crops: crops of the first frames, in order.
        supplied: user-made masks of the same frames, by kind.
    """

    run: Run
    frames: np.ndarray
    box: Box
    view: Box
    points: np.ndarray
    fps: float
    crops: list[np.ndarray] = field(default_factory=list)
    supplied: dict[str, list[np.ndarray]] = field(default_factory=dict)


def stretch_of(run: Run, smooth: np.ndarray, faces: Faces, first: int, last: int, stride: int = 1) -> Stretch:
    """Return a stretch with every `stride`-th of the frames `first` .. `last` - 1 of a run.

    `smooth` holds the points of the whole run, smoothed. So the ends of a part are smoothed like its middle.
    """
    frames = np.arange(first, last, stride)
    points, fps = smooth[frames - run.first], faces.fps / stride
    view = head_box(points, fps, faces.height, faces.width)
    if run.seen is None:
        return Stretch(run, frames, view, view, points, fps)
    # Frames without a face show the nearest frame with one, moved to where the face is supposed to be.
    seen = run.first + np.flatnonzero(run.seen)
    nearest = seen[np.abs(seen[None] - frames[:, None]).argmin(1)]
    there = smooth[nearest - run.first]
    scale = face_height(there) / face_height(points)
    centre = face_centre(there) + (view.centre - face_centre(points)) * scale[:, None]
    return Stretch(run, nearest, Box(centre, view.side * scale), view, points, fps)


def cut_clips(pictures: Iterable[np.ndarray], stretches: list[Stretch], crop: Crop, annotator: Annotator,
              supplied: SuppliedMasks | None = None) -> Iterator[tuple[Stretch, Clip, Evidence]]:
    """Cut the clips in a second pass over a video.

    Args:
        pictures: the video's frames from the first one, (H, W, 3) uint8 RGB.
        stretches: the frames of each clip; they may overlap if a frame shows several faces.
        crop: size and masks.
        annotator: a loaded annotator.
        supplied: returns user-made masks, which replace the masker's.

    Yields:
        A stretch, its clip and its evidence of each attribute, as soon as its last frame has been read.

    Raises:
        InputError: the second pass has fewer frames than the first.
    """
    waiting = sorted(stretches, key=lambda stretch: int(stretch.frames[0]))
    active: list[Stretch] = []
    for number, picture in enumerate(pictures):
        while waiting and waiting[0].frames[0] == number:
            active.append(waiting.pop(0))
        for stretch in active:
            while len(stretch.crops) < len(stretch.frames) and stretch.frames[len(stretch.crops)] == number:
                take(stretch, picture, number, crop, supplied)
        for stretch in [stretch for stretch in active if len(stretch.crops) == len(stretch.frames)]:
            active.remove(stretch)
            yield stretch, *finish(stretch, crop, annotator)
            stretch.crops.clear()
            stretch.supplied.clear()
        if not active and not waiting:
            return
    raise InputError("the video had fewer frames in the second pass than in the first; wait until the file is "
                     "completely written and run again")


def take(stretch: Stretch, picture: np.ndarray, number: int, crop: Crop, supplied: SuppliedMasks | None) -> None:
    """Append the crop and the supplied masks of one source picture to a stretch."""
    index, side = len(stretch.crops), crop.size + 2 * crop.margin
    # The stretch's box frames the view; the stored crop includes the margin.
    box = Box(stretch.box.centre, stretch.box.side * (side / crop.size))
    stretch.crops.append(box.crop(picture, index, max(side, _MASK_SIZES[0])))
    for kind, mask in (supplied(number, *picture.shape[:2]) if supplied else {}).items():
        cut = box.crop(mask.astype(np.uint8) * 255, index, side) > 127
        stretch.supplied.setdefault(kind, []).append(cut)


def finish(stretch: Stretch, crop: Crop, annotator: Annotator) -> tuple[Clip, Evidence]:
    """Return the clip and the evidence of a stretch whose crops are complete."""
    side = crop.size + 2 * crop.margin
    box = Box(stretch.view.centre, stretch.view.side * (side / crop.size))
    mesh = box.keypoints(stretch.points)
    keypoints = np.ascontiguousarray(mesh[:, MEDIAPIPE_INDICES])
    masks, evidence = np.zeros((len(keypoints), side, side), np.uint8), NO_EVIDENCE
    if crop.masker is not None:
        small = int(np.clip(side, *_MASK_SIZES))
        looked_at = np.stack([resized(picture, small) for picture in stretch.crops])
        person = np.stack([annotator.person(picture) for picture in looked_at])
        found, evidence = crop.masker(looked_at, keypoints, person, crop.known)
        found |= (person > 127).astype(np.uint8) * np.uint8(layer_bit("person"))
        masks = np.stack([resized_bits(mask, side) for mask in found])
    for kind, given in stretch.supplied.items():
        masks &= np.uint8(255 - attribute_bit(kind))
        masks |= np.stack(given).astype(np.uint8) * np.uint8(attribute_bit(kind))
    masks |= np.stack([expression_regions(points, side, side) for points in keypoints])
    frames = np.stack([resized(picture, side) for picture in stretch.crops])
    cut_from = np.concatenate([box.centre, box.side[:, None]], 1, dtype=np.float32)
    return Clip(frames, keypoints, masks, stretch.fps, margin=crop.margin, mesh=mesh, box=cut_from), evidence


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """Resize an (H, H, 3) picture to (size, size, 3)."""
    if picture.shape[0] == size:
        return picture
    how = cv2.INTER_AREA if size < picture.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(picture, (size, size), interpolation=how)


def resized_bits(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize an (H, W) bit field to (size, size); a bit is set if it covers at least half of the new pixel."""
    if mask.shape[0] == size:
        return mask
    how = cv2.INTER_AREA if size < mask.shape[0] else cv2.INTER_CUBIC  # cubic keeps outlines round
    result = np.zeros((size, size), np.uint8)
    for layer in MASK_LAYERS:
        bit = layer_bit(layer)
        if (mask & bit).any():
            share = cv2.resize(((mask & bit) > 0).astype(np.float32), (size, size), interpolation=how)
            result[share >= 0.5] |= bit
    return result
