"""Annotate ordinary pictures and videos: keypoints, a stable crop and masks.

A video is read twice, frame by frame. The first pass keeps only the faces (`track`), which decide the runs and
boxes. The second pass cuts the crops. So memory holds only the pictures of the clips that are being cut.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from durian_jax.errors import InputError
from durian_jax.faces.clip import MASK_LAYERS, Clip, attribute_bit, layer_bit
from durian_jax.faces.regions import expression_regions
from durian_jax.faces.topology import MEDIAPIPE_INDICES
from durian_jax.prepare.attributes import Evidence, attribute_masks
from durian_jax.prepare.client import Annotator
from durian_jax.prepare.crop import Box, face_height, head_box, smooth_track
from durian_jax.prepare.maskers import Masker
from durian_jax.prepare.track import MIN_FACE_HEIGHT, Faces, Run, describe_ranges, find_faces
from durian_jax.progress import progress_bar
from durian_jax.video import iterate_video, probe_video, read_image

# Masks are made at a size in this range, in pixels per side. The person detector works at 256 pixels. The heuristic's
# memory grows with the square of the size.
_MASK_SIZES = (256, 320)

# (frame number, counted from the first frame read; height; width) -> user-made (H, W) bool masks of the source
# picture, by kind.
SuppliedMasks = Callable[[int, int, int], Mapping[str, np.ndarray]]


class FramesLeftOut(UserWarning):
    """Warning: frames of a video show no face and are skipped."""


class UnsureAttribute(UserWarning):
    """Warning: a photo gives little evidence of an attribute that it is said to show."""


@dataclass(frozen=True)
class Crop:
    """How pictures are cropped and annotated.

    Attributes:
        size: side of the square view in pixels.
        margin: pixels kept on each side around the view.
        masker: finds the pixels of each attribute.
        known: attribute kinds that the person certainly wears (see `Masker`); None: judge all kinds from the pixels.
    """

    size: int = 128
    margin: int = 0
    masker: Masker = attribute_masks
    known: tuple[str, ...] | None = None

    def __post_init__(self):
        for kind in self.known or ():
            attribute_bit(kind)


@dataclass
class Stretch:
    """Frames of a run that become one clip, with the crops cut so far.

    Attributes:
        run: the face's run.
        frames: (T,) frame numbers in the video, ascending.
        box: T crop boxes.
        points: (T, 478, 3) float32, smoothed.
        fps: frames per second of the clip.
        crops: crops of the first frames, in order.
        supplied: user-made masks of the same frames, by kind.
    """

    run: Run
    frames: np.ndarray
    box: Box
    points: np.ndarray
    fps: float
    crops: list[np.ndarray] = field(default_factory=list)
    supplied: dict[str, list[np.ndarray]] = field(default_factory=dict)


def annotate_image(path: str | Path, size: int = 128, known: tuple[str, ...] | None = None,
                   annotator: Annotator | None = None) -> Clip:
    """Annotate a photo as a clip of one frame.

    Args:
        path: a picture of one person; of several faces the largest is used.
        size: side of the square crop in pixels.
        known: attribute kinds that the person certainly wears (see `maskers.Masker`); None: judge all kinds from
            the pixels.
        annotator: a running annotator; None: start one for this call.

    Raises:
        InputError: the picture is unreadable or shows no usable face, a known attribute is not found, or the
            annotator is not installed.
    """
    image = read_image(path)
    crop = Crop(size, known=known)
    with _running(annotator) as worker:
        points = worker.mesh(image)
        if points is None:
            raise InputError(f"no face found in {path}; expected one frontal face at least {MIN_FACE_HEIGHT} "
                             "px high; choose another photo")
        if face_height(points) < MIN_FACE_HEIGHT:
            raise InputError(f"the face in {path} is {face_height(points):.0f} px high; expected at least "
                             f"{MIN_FACE_HEIGHT} px; choose a photo with a larger face")
        run = Run(0, points[None])
        stretch = Stretch(run, np.zeros(1, int), head_box(run.points, 1.0, *image.shape[:2]), run.points, 25.0)
        _take(stretch, image, 0, crop, None)
        clip, evidence = _finish(stretch, crop, worker)
    for kind in known or ():
        if not clip.mask(kind).any():
            raise InputError(f"no {kind} found on the person in {path}; choose a photo that shows it clearly")
        if getattr(evidence, kind) < 1:
            warnings.warn(f"{path}: little evidence of {kind} was found, so the mask of {kind} may be wrong; check the "
                          "photo", UnsureAttribute, stacklevel=2)
    return _named(clip, path)


def annotate_video(path: str | Path, size: int = 128, max_frames: int | None = None,
                   known: tuple[str, ...] | None = None, annotator: Annotator | None = None,
                   fps: float | None = None) -> tuple[Clip, list[tuple[int, int]]]:
    """Annotate all frames of a video that show a face, as one clip.

    Args:
        path: a video of one person.
        size: side of the square crop in pixels.
        max_frames: read at most this many frames; None: read all.
        known: attribute kinds that the person certainly wears; None: judge all kinds from the pixels.
        annotator: a running annotator; None: start one for this call.
        fps: frames per second to read; None: the video's.

    Returns:
        The clip, and the skipped frames without a face as (first, last + 1) ranges. A warning names these
        frames too.

    Raises:
        InputError: the video is unreadable or shows no usable face, or the annotator is not installed.
    """
    crop, info = Crop(size, known=known), probe_video(path).at_rate(fps)
    total = min(info.declared_frames or max_frames or 0, max_frames or info.declared_frames) or None
    with _running(annotator) as worker:
        faces = find_faces(_bar(iterate_video(path, max_frames, fps=fps), total,
                                f"finding the face in {Path(path).name}"), info.fps, worker)
        skipped = faces.faceless()
        if not faces.runs:
            raise no_face(path, faces)
        if skipped:
            warnings.warn(f"{path}: no face in frames {describe_ranges(skipped)} of {len(faces)}; "
                          "these frames are skipped", FramesLeftOut, stacklevel=2)
        stretches = [stretch_of(run, smooth_track(run.points), faces, run.first, run.last) for run in faces.runs]
        pictures = _bar(iterate_video(path, len(faces), fps=fps), len(faces), f"cropping {Path(path).name}")
        clips = [clip for _, clip, _ in cut_clips(pictures, stretches, crop, worker)]
    joined = Clip(*(np.concatenate([getattr(clip, name) for clip in clips])
                    for name in ("frames", "keypoints", "masks")), faces.fps)
    return _named(joined, path), skipped


def stretch_of(run: Run, smooth: np.ndarray, faces: Faces, first: int, last: int, stride: int = 1) -> Stretch:
    """Return a stretch with every `stride`-th of the frames `first` .. `last` - 1 of a run.

    `smooth` holds the points of the whole run, smoothed. So the ends of a part are smoothed like its middle.
    """
    frames = np.arange(first, last, stride)
    points, fps = smooth[frames - run.first], faces.fps / stride
    return Stretch(run, frames, head_box(points, fps, faces.height, faces.width), points, fps)


def cut_clips(pictures: Iterable[np.ndarray], stretches: list[Stretch], crop: Crop, annotator: Annotator,
              supplied: SuppliedMasks | None = None) -> Iterator[tuple[Stretch, Clip, Evidence]]:
    """Cut the clips in a second pass over a video.

    Args:
        pictures: the video's frames from the first one, (H, W, 3) uint8 RGB.
        stretches: the frames of each clip; they may overlap if a frame shows several faces.
        crop: size and masks.
        annotator: a running annotator.
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
            if stretch.frames[len(stretch.crops)] == number:
                _take(stretch, picture, number, crop, supplied)
        for stretch in [stretch for stretch in active if len(stretch.crops) == len(stretch.frames)]:
            active.remove(stretch)
            yield stretch, *_finish(stretch, crop, annotator)
            stretch.crops.clear()
            stretch.supplied.clear()
        if not active and not waiting:
            return
    raise InputError("the video had fewer frames in the second pass than in the first; wait until the file is "
                     "completely written and run again")


def no_face(path: str | Path, faces: Faces) -> InputError:
    """Return the error for a video without a usable face."""
    return InputError(f"no face found in any of the {len(faces)} frames of {path}; expected one "
                      f"frontal face at least {MIN_FACE_HEIGHT} px high; choose another video")


def _take(stretch: Stretch, picture: np.ndarray, number: int, crop: Crop, supplied: SuppliedMasks | None) -> None:
    """Append the crop and the supplied masks of one source picture to a stretch."""
    index, side = len(stretch.crops), crop.size + 2 * crop.margin
    # The stretch's box frames the view; the stored crop includes the margin.
    box = Box(stretch.box.centre, stretch.box.side * (side / crop.size))
    stretch.crops.append(box.crop(picture, index, max(side, _MASK_SIZES[0])))
    for kind, mask in (supplied(number, *picture.shape[:2]) if supplied else {}).items():
        cut = box.crop(mask.astype(np.uint8) * 255, index, side) > 127
        stretch.supplied.setdefault(kind, []).append(cut)


def _finish(stretch: Stretch, crop: Crop, annotator: Annotator) -> tuple[Clip, Evidence]:
    """Return the clip and the evidence of a stretch whose crops are complete."""
    side = crop.size + 2 * crop.margin
    box = Box(stretch.box.centre, stretch.box.side * (side / crop.size))
    mesh = box.keypoints(stretch.points)
    keypoints = np.ascontiguousarray(mesh[:, MEDIAPIPE_INDICES])
    small = int(np.clip(side, *_MASK_SIZES))
    looked_at = np.stack([_resize(picture, small) for picture in stretch.crops])
    person = np.stack([annotator.person(picture) for picture in looked_at])
    masks, evidence = crop.masker(looked_at, keypoints, person, crop.known)
    masks |= (person > 127).astype(np.uint8) * np.uint8(layer_bit("person"))
    masks = np.stack([_resize_bits(mask, side) for mask in masks])
    for kind, given in stretch.supplied.items():
        masks &= np.uint8(255 - attribute_bit(kind))
        masks |= np.stack(given).astype(np.uint8) * np.uint8(attribute_bit(kind))
    masks |= np.stack([expression_regions(points, side, side) for points in keypoints])
    frames = np.stack([_resize(picture, side) for picture in stretch.crops])
    cut_from = np.concatenate([box.centre, box.side[:, None]], 1, dtype=np.float32)
    return Clip(frames, keypoints, masks, stretch.fps, margin=crop.margin, mesh=mesh, box=cut_from), evidence


def _resize(picture: np.ndarray, size: int) -> np.ndarray:
    return picture if picture.shape[0] == size else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def _resize_bits(mask: np.ndarray, size: int) -> np.ndarray:
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


def _named(clip: Clip, path: str | Path) -> Clip:
    return Clip(clip.frames, clip.keypoints, clip.masks, clip.fps, Path(path).stem, box=clip.box)


def _running(annotator: Annotator | None):
    return nullcontext(annotator) if annotator is not None else Annotator()


def _bar(iterable: Iterable, total: int | None, words: str) -> tqdm:
    # The delay hides the bar of short jobs.
    return progress_bar(iterable, total=total, desc=words, unit="frame", leave=False, delay=2)
