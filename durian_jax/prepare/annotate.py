"""Ordinary pictures and videos -> annotated clips: keypoints, a stable crop, attribute masks.

A video is read twice, frame by frame: first only the face mesh is kept (it decides runs and boxes), then
the crops are cut. So a long video needs no memory beyond its result.
"""

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS, MEDIAPIPE_INDICES
from durian_jax.prepare.attributes import Evidence, attribute_masks
from durian_jax.prepare.client import Annotator
from durian_jax.prepare.crop import Box, face_centre, face_height, head_box, runs, shot_cuts, smooth_track
from durian_jax.video import iterate_video, probe_video, read_image

# Below this many pixels between chin and hairline a mesh is guesswork.
MIN_FACE_HEIGHT = 48

# Masks are made at this size at least: the person detector's own resolution is 256.
_MASK_SIZE = 256


class FramesLeftOut(UserWarning):
    """Some frames of a video show no face."""


class UnsureAttribute(UserWarning):
    """A photo that is said to show an attribute hardly looks like it."""


@dataclass(frozen=True)
class Track:
    """The face through a whole video.

    Attributes:
        points: (T, 478, 3) float32 in pixels; NaN where no usable face was found.
        cuts: (T,) bool, True where a new shot begins.
        fps: frames per second.
        height, width: of the pictures.
    """

    points: np.ndarray
    cuts: np.ndarray
    fps: float
    height: int
    width: int

    @property
    def usable(self) -> np.ndarray:
        """(T,) bool: frames with a face."""
        return np.isfinite(self.points[:, 0, 0])

    def runs(self) -> list[tuple[int, int]]:
        """Uninterrupted stretches (first, last + 1) of one shot with a face in every frame."""
        return runs(self.usable, self.cuts)

    def skipped(self) -> list[tuple[int, int]]:
        """Stretches (first, last + 1) of frames without a face."""
        return runs(~self.usable, np.zeros(len(self.points), bool))


def annotate_image(path: str | Path, size: int = 128, known: tuple[str, ...] | None = None,
                   annotator: Annotator | None = None) -> Clip:
    """A photo as a clip of one frame.

    Args:
        path: a picture of one person; with several faces the largest counts.
        size: side of the square crop in pixels.
        known: attribute kinds that the person certainly wears (see `attributes.attribute_masks`); None
            judges all from the pixels.
        annotator: a running one to use; None starts its own.

    Raises:
        InputError: no readable picture, no usable face in it, a known attribute that cannot be found, or
            no annotator.
    """
    image = read_image(path)
    for kind in known or ():
        attribute_bit(kind)
    with _running(annotator) as worker:
        points = worker.mesh(image)
        if points is None:
            raise InputError(f"no face found in {path}; expected one frontal face at least {MIN_FACE_HEIGHT} "
                             "px high; choose another photo")
        if face_height(points) < MIN_FACE_HEIGHT:
            raise InputError(f"the face in {path} is {face_height(points):.0f} px high; expected at least "
                             f"{MIN_FACE_HEIGHT} px; choose a larger photo or crop")
        points = points[None]
        box = head_box(points, 1.0, *image.shape[:2])
        clip, evidence = _cut([image], points, box, size, 25.0, Path(path).stem, known, worker)
    for kind in known or ():
        if not clip.mask(kind).any():
            raise InputError(f"no {kind} found on the person in {path}; choose a photo that shows it clearly")
        if getattr(evidence, kind) < 1:
            warnings.warn(f"{path}: the person hardly seems to have {kind}; the region of the face where {kind} would "
                          "be is taken", UnsureAttribute, stacklevel=2)
    return clip


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
    for kind in known or ():
        attribute_bit(kind)
    with _running(annotator) as worker:
        track = track_face(path, worker, max_frames)
        skipped = track.skipped()
        if not track.usable.any():
            raise no_face(path, track)
        if skipped:
            warnings.warn(f"{path}: no face in frames {describe_ranges(skipped)} of {len(track.points)}; "
                          "they are left out", FramesLeftOut, stacklevel=2)
        clips = [clip for clip, _ in annotate_runs(path, track, track.runs(), size, worker, known=known)]
    joined = Clip(*(np.concatenate([getattr(clip, field) for clip in clips])
                    for field in ("frames", "keypoints", "masks")), track.fps, Path(path).stem)
    return joined, skipped


def track_face(path: str | Path, annotator: Annotator, max_frames: int | None = None) -> Track:
    """First reading of a video: its face mesh and its shot cuts.

    Raises:
        InputError: no readable video.
    """
    info = probe_video(path)
    total = min(info.declared_frames or max_frames or 0, max_frames or info.declared_frames) or None
    annotator.reset()
    meshes, thumbnails, shape = [], [], None
    nothing = np.full((478, 3), np.nan, np.float32)
    for image in _bar(iterate_video(path, max_frames), total, f"finding the face in {Path(path).name}"):
        shape = image.shape
        points = annotator.mesh(image, tracked=True)
        meshes.append(points if points is not None and _plausible(points, shape) else nothing)
        thumbnails.append(cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA))
    points = np.stack(meshes)
    cuts = shot_cuts(np.stack(thumbnails), face_centre(points), face_height(points))
    return Track(points, cuts, info.fps, *shape[:2])


def annotate_runs(path: str | Path, track: Track, stretches: list[tuple[int, int]], size: int,
                  annotator: Annotator, stride: int = 1,
                  known: tuple[str, ...] | None = None) -> Iterator[tuple[Clip, Evidence]]:
    """Second reading of a video: one clip a stretch of frames, every `stride`-th frame of it.

    Args:
        path: the video that `track` was made from.
        track: from `track_face`.
        stretches: (first, last + 1), in order, each within one of `track.runs()`.
        size: side of the square crop in pixels.
        annotator: a running annotator.
        stride: keep every so-manieth frame.
        known: attribute kinds that the person certainly wears; None judges all from the pixels.

    Yields:
        The clip of each stretch, and how surely it shows each attribute.
    """
    images = enumerate(iterate_video(path, len(track.points)))
    bar = _bar(images, len(track.points), f"cropping {Path(path).name}")
    # Smoothed over whole runs: a stretch that is a part of one has no ends of its own.
    smooth = track.points.copy()
    for first, last in track.runs():
        smooth[first:last] = smooth_track(track.points[first:last])
    for first, last in stretches:
        wanted = np.arange(first, last, stride)
        pictures = []
        for index, image in bar:
            if index >= first and (index - first) % stride == 0:
                pictures.append(image)
            if index == wanted[-1]:
                break
        points = smooth[wanted]
        box = head_box(points, track.fps / stride, track.height, track.width)
        yield _cut(pictures, points, box, size, track.fps / stride, Path(path).stem, known, annotator)
    bar.close()


def no_face(path: str | Path, track: Track) -> InputError:
    """What to say of a video in which no frame shows a usable face."""
    return InputError(f"no face found in any of the {len(track.points)} frames of {path}; expected one "
                      f"frontal face at least {MIN_FACE_HEIGHT} px high; choose another video")


def describe_ranges(ranges: list[tuple[int, int]]) -> str:
    """Frame ranges (first, last + 1) in words, last frame included: "0-3, 17"."""
    return ", ".join(f"{a}-{b - 1}" if b - a > 1 else str(a) for a, b in ranges)


def _cut(images: list[np.ndarray], points: np.ndarray, box: Box, size: int, fps: float, identity: str,
         known: tuple[str, ...] | None, annotator: Annotator) -> tuple[Clip, Evidence]:
    large = max(size, _MASK_SIZE)
    crops = np.stack([box.crop(image, t, large) for t, image in enumerate(images)])
    person = np.stack([annotator.person(crop) for crop in crops])
    keypoints = box.keypoints(points[:, MEDIAPIPE_INDICES])
    masks, evidence = attribute_masks(crops, keypoints, person, known)
    if large != size:
        crops = np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in crops])
        masks = np.stack([_shrink_bits(mask, size) for mask in masks])
    return Clip(crops, keypoints, masks, fps, identity), evidence


def _shrink_bits(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) bit field -> (size, size): a bit stays where it covers at least half of a pixel."""
    small = np.zeros((size, size), np.uint8)
    for bit in map(attribute_bit, ATTRIBUTE_KINDS):
        if (mask & bit).any():
            share = cv2.resize(((mask & bit) > 0).astype(np.float32), (size, size),
                               interpolation=cv2.INTER_AREA)
            small[share >= 0.5] |= bit
    return small


def _plausible(points: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a mesh is large enough and its middle lies in the picture."""
    x, y = face_centre(points)
    return bool(face_height(points) >= MIN_FACE_HEIGHT and 0 <= x < shape[1] and 0 <= y < shape[0])


def _running(annotator: Annotator | None):
    return nullcontext(annotator) if annotator is not None else Annotator()


def _bar(iterable, total: int | None, words: str) -> tqdm:
    # Shown only where the work takes longer than two seconds.
    return tqdm(iterable, total=total, desc=words, unit="frame", leave=False, delay=2)
