"""Ordinary pictures and videos -> annotated clips: keypoints, a stable crop, masks.

A video is read twice, frame by frame: first only the faces are kept (`track`; they decide runs and boxes),
then the crops are cut. So pictures need no memory beyond the clips that are being cut.
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
from durian_jax.video import iterate_video, probe_video, read_image

# Masks are made at this size, in pixels a side: the person detector's own resolution is 256, and a heuristic's
# memory grows with the square.
_MASK_SIZES = (256, 320)

# Frame number (from the first one read), height, width -> (H, W) bool masks by kind, as a user made them for the
# source picture.
SuppliedMasks = Callable[[int, int, int], Mapping[str, np.ndarray]]


class FramesLeftOut(UserWarning):
    """Some frames of a video show no face."""


class UnsureAttribute(UserWarning):
    """A photo that is said to show an attribute hardly looks like it."""


@dataclass(frozen=True)
class Crop:
    """How pictures are cut and annotated.

    Attributes:
        size: side of the square view in pixels.
        margin: pixels kept on each side around it.
        masker: says which pixels show an attribute.
        known: attribute kinds that the person certainly wears (see `Masker`); None judges all from the pixels.
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
    """Frames of a run that become one clip, and what has been cut for it so far.

    Attributes:
        run: whose face.
        frames: (T,) numbers in the video, ascending.
        box: where to cut, T crops.
        points: (T, 478, 3) float32, smoothed.
        fps: frames per second of the clip.
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
    """A photo as a clip of one frame.

    Args:
        path: a picture of one person; with several faces the largest counts.
        size: side of the square crop in pixels.
        known: attribute kinds that the person certainly wears (see `maskers.Masker`); None judges all from the
            pixels.
        annotator: a running one to use; None starts its own.

    Raises:
        InputError: no readable picture, no usable face in it, a known attribute that cannot be found, or
            no annotator.
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
                             f"{MIN_FACE_HEIGHT} px; choose a larger photo or crop")
        run = Run(0, points[None])
        stretch = Stretch(run, np.zeros(1, int), head_box(run.points, 1.0, *image.shape[:2]), run.points, 25.0)
        _take(stretch, image, 0, crop, None)
        clip, evidence = _finish(stretch, crop, worker)
    for kind in known or ():
        if not clip.mask(kind).any():
            raise InputError(f"no {kind} found on the person in {path}; choose a photo that shows it clearly")
        if getattr(evidence, kind) < 1:
            warnings.warn(f"{path}: the person hardly seems to have {kind}; the region of the face where {kind} would "
                          "be is taken", UnsureAttribute, stacklevel=2)
    return _named(clip, path)


def annotate_video(path: str | Path, size: int = 128, max_frames: int | None = None,
                   known: tuple[str, ...] | None = None,
                   annotator: Annotator | None = None) -> tuple[Clip, list[tuple[int, int]]]:
    """All frames of a video in which a face is found, as one clip.

    Args:
        path: a video of one person.
        size: side of the square crop in pixels.
        max_frames: read this many frames at most; None reads all.
        known: attribute kinds that the person certainly wears; None judges all from the pixels.
        annotator: a running one to use; None starts its own.

    Returns:
        The clip, and the frames left out for want of a face, as (first, last + 1) ranges; a warning names
        them too.

    Raises:
        InputError: no readable video, no frame with a usable face, or no annotator.
    """
    crop, info = Crop(size, known=known), probe_video(path)
    total = min(info.declared_frames or max_frames or 0, max_frames or info.declared_frames) or None
    with _running(annotator) as worker:
        faces = find_faces(_bar(iterate_video(path, max_frames), total, f"finding the face in {Path(path).name}"),
                           info.fps, worker)
        skipped = faces.faceless()
        if not faces.runs:
            raise no_face(path, faces)
        if skipped:
            warnings.warn(f"{path}: no face in frames {describe_ranges(skipped)} of {len(faces)}; "
                          "they are left out", FramesLeftOut, stacklevel=2)
        stretches = [stretch_of(run, smooth_track(run.points), faces, run.first, run.last) for run in faces.runs]
        pictures = _bar(iterate_video(path, len(faces)), len(faces), f"cropping {Path(path).name}")
        clips = [clip for _, clip, _ in cut_clips(pictures, stretches, crop, worker)]
    joined = Clip(*(np.concatenate([getattr(clip, name) for clip in clips])
                    for name in ("frames", "keypoints", "masks")), faces.fps)
    return _named(joined, path), skipped


def stretch_of(run: Run, smooth: np.ndarray, faces: Faces, first: int, last: int, stride: int = 1) -> Stretch:
    """Every `stride`-th of the frames `first` .. `last` - 1 of a run.

    `smooth` are the run's points smoothed over the whole of it: a part of a run has no ends of its own.
    """
    frames = np.arange(first, last, stride)
    points, fps = smooth[frames - run.first], faces.fps / stride
    return Stretch(run, frames, head_box(points, fps, faces.height, faces.width), points, fps)


def cut_clips(pictures: Iterable[np.ndarray], stretches: list[Stretch], crop: Crop, annotator: Annotator,
              supplied: SuppliedMasks | None = None) -> Iterator[tuple[Stretch, Clip, Evidence]]:
    """Second reading of a video: one clip a stretch, as soon as its last frame has come.

    Args:
        pictures: the video's frames from the first, (H, W, 3) uint8 RGB.
        stretches: may overlap where a frame shows several faces.
        crop: size and masks.
        annotator: a running one.
        supplied: masks that a user made; they take the place of the masker's.

    Yields:
        Each stretch, its clip, and how surely it shows each attribute.
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
    raise InputError("the video ended earlier when it was read again; is it still being written?")


def no_face(path: str | Path, faces: Faces) -> InputError:
    """What to say of a video in which no frame shows a usable face."""
    return InputError(f"no face found in any of the {len(faces)} frames of {path}; expected one "
                      f"frontal face at least {MIN_FACE_HEIGHT} px high; choose another video")


def _take(stretch: Stretch, picture: np.ndarray, number: int, crop: Crop, supplied: SuppliedMasks | None) -> None:
    """Adds one source picture to a stretch."""
    index, side = len(stretch.crops), crop.size + 2 * crop.margin
    # The box is of the view; what is stored is larger by the margin.
    box = Box(stretch.box.centre, stretch.box.side * (side / crop.size))
    stretch.crops.append(box.crop(picture, index, max(side, _MASK_SIZES[0])))
    for kind, mask in (supplied(number, *picture.shape[:2]) if supplied else {}).items():
        cut = box.crop(mask.astype(np.uint8) * 255, index, side) > 127
        stretch.supplied.setdefault(kind, []).append(cut)


def _finish(stretch: Stretch, crop: Crop, annotator: Annotator) -> tuple[Clip, Evidence]:
    """The clip of a stretch whose pictures are all there."""
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
    return Clip(frames, keypoints, masks, stretch.fps, margin=crop.margin, mesh=mesh), evidence


def _resize(picture: np.ndarray, size: int) -> np.ndarray:
    return picture if picture.shape[0] == size else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def _resize_bits(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) bit field -> (size, size): a bit stays where it covers at least half of a pixel."""
    if mask.shape[0] == size:
        return mask
    how = cv2.INTER_AREA if size < mask.shape[0] else cv2.INTER_CUBIC  # cubic: outlines stay round
    result = np.zeros((size, size), np.uint8)
    for layer in MASK_LAYERS:
        bit = layer_bit(layer)
        if (mask & bit).any():
            share = cv2.resize(((mask & bit) > 0).astype(np.float32), (size, size), interpolation=how)
            result[share >= 0.5] |= bit
    return result


def _named(clip: Clip, path: str | Path) -> Clip:
    return Clip(clip.frames, clip.keypoints, clip.masks, clip.fps, Path(path).stem)


def _running(annotator: Annotator | None):
    return nullcontext(annotator) if annotator is not None else Annotator()


def _bar(iterable: Iterable, total: int | None, words: str) -> tqdm:
    # Shown only where the work takes longer than two seconds.
    return tqdm(iterable, total=total, desc=words, unit="frame", leave=False, delay=2)
