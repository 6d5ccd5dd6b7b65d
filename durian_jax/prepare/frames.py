"""Read the frames of a video file or of a folder of numbered pictures in the same way."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.errors import InputError
from durian_jax.images import turned
from durian_jax.prepare.inputs import VideoInput
from durian_jax.video import IMAGE_SUFFIXES, iterate_video, probe_video, read_image

# Assumed frame rate of picture folders, which do not store one.
PICTURES_FPS = 25.0


@dataclass(frozen=True)
class Frames:
    """Frames of one input; every iteration reads the same frames from the disk again.

    Yields upright (H, W, 3) uint8 RGB arrays, all of one size.

    Attributes:
        video: the input, whose `start` and `end` limit the frames.
        fps: frames per second.
        count: expected number of frames, for a progress bar; None if the file does not declare it.
        max_frames: read at most this many frames; None: read all.
        first: number of the first frame read, counted in the whole video.
        pictures: files of a picture folder in order; empty for a video file.
        turns: quarter turns to the left that make the pictures upright.
    """

    video: VideoInput
    fps: float
    count: int | None
    max_frames: int | None
    first: int = 0
    pictures: tuple[Path, ...] = ()
    turns: int = 0

    def upright(self, annotator: Annotator) -> "Frames":
        """Return the frames turned so that the heads in the first picture are upright."""
        first = next(iter(replace(self, max_frames=1, pictures=self.pictures[:1])))
        return replace(self, turns=(self.turns + annotator.turn(first)) % 4)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames; raise InputError at the first damaged frame (see `iterate_video`)."""
        for image in self._as_stored():
            yield turned(image, self.turns)

    def _as_stored(self) -> Iterator[np.ndarray]:
        if not self.pictures:
            yield from iterate_video(self.video.path, self.max_frames, self.video.start, self.video.end)
        shape = None
        for path in self.pictures:
            image = read_image(path)
            shape = shape or image.shape
            if image.shape != shape:
                raise InputError(f"{path}: expected {shape[1]} x {shape[0]} pixels as in the previous pictures, found "
                                 f"{image.shape[1]} x {image.shape[0]}; keep only one video's pictures in a folder")
            yield image


def open_frames(video: VideoInput, max_frames: int | None = None) -> Frames:
    """Open an input without reading its frames yet.

    The frames run from `video.start` up to, but not including, `video.end`, in seconds since the first frame. Pictures
    are ordered by the numbers in their names and have the frame rate `PICTURES_FPS`.

    Raises:
        InputError: the input is neither a video file nor a folder of pictures, or no picture is in the range. For a
            video file, an empty range is only found when the frames are read.
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"frames to read: expected at least 1, got {max_frames}")
    if os.path.isdir(video.path):
        pictures = _pictures(video)[:max_frames]
        return Frames(video, PICTURES_FPS, len(pictures), max_frames, _first(video, PICTURES_FPS), pictures)
    info = probe_video(video.path)
    count = info.declared_frames or None
    if count is not None:
        first, last = (round(min(seconds * info.fps, count)) for seconds in (video.start or 0, video.end or np.inf))
        count = min(last - first, max_frames or count)
    return Frames(video, info.fps, count, max_frames, _first(video, info.fps))


def _first(video: VideoInput, fps: float) -> int:
    """Return the number of the first frame at or after the video's start, at a constant frame rate."""
    return math.ceil((video.start or 0) * fps - 1e-6)


def _pictures(video: VideoInput) -> tuple[Path, ...]:
    """Return the files of a picture folder within its range, in natural order (2 before 10).

    Raises:
        InputError: the folder or the range contains no pictures.
    """
    def order(path: Path) -> tuple[str, str]:
        name = path.relative_to(video.path).as_posix()
        return re.sub(r"\d+", lambda digits: digits[0].zfill(20), name), name

    pictures = sorted((path for path in video.path.glob(video.pictures)
                       if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")), key=order)
    if not pictures:
        raise InputError(f"{video.path}: expected a video or a folder of numbered pictures, found a folder without "
                         "pictures; name the folder that contains them")
    start, end = video.start or 0, np.inf if video.end is None else video.end
    chosen = tuple(path for index, path in enumerate(pictures) if start <= index / PICTURES_FPS < end)
    if not chosen:
        until = "the end" if video.end is None else f"{end:g} s"
        raise InputError(f"{video.path}: expected a picture from {start:g} s to {until}, found none; the "
                         f"{len(pictures)} pictures last {len(pictures) / PICTURES_FPS:.2f} s; choose another range")
    return chosen
