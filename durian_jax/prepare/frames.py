"""One way to read frames, whether a video is a film or a folder of numbered pictures."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from durian_jax.errors import InputError
from durian_jax.prepare.inputs import VideoInput
from durian_jax.video import IMAGE_SUFFIXES, iterate_video, probe_video, read_image

# Pictures do not say how fast they follow each other.
PICTURES_FPS = 25.0


@dataclass(frozen=True)
class Frames:
    """The frames of one input; every iteration reads the same ones anew from the disk.

    Yields upright (H, W, 3) uint8 RGB arrays, all of one size.

    Attributes:
        video: the input, whose `start` and `end` limit the frames.
        fps: frames per second.
        count: how many frames to expect, for a progress bar; None where the file does not say.
        max_frames: so many at most; None for all.
        first: number of the first of them in the whole video.
        pictures: the files of a picture sequence in order; empty for a film.
    """

    video: VideoInput
    fps: float
    count: int | None
    max_frames: int | None
    first: int = 0
    pictures: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Raises InputError at the frame where the input turns out to be damaged (see `iterate_video`)."""
        if not self.pictures:
            yield from iterate_video(self.video.path, self.max_frames, self.video.start, self.video.end)
        shape = None
        for path in self.pictures:
            image = read_image(path)
            shape = shape or image.shape
            if image.shape != shape:
                raise InputError(f"{path}: expected {shape[1]} x {shape[0]} pixels as in the pictures before, found "
                                 f"{image.shape[1]} x {image.shape[0]}; keep only one video's pictures in a folder")
            yield image


def open_frames(video: VideoInput, max_frames: int | None = None) -> Frames:
    """Look at what an input is, without reading its frames yet.

    A film is used from `video.start` to before `video.end`, in seconds since its first frame; pictures are
    taken to follow each other at `PICTURES_FPS`, in the order of the numbers in their names.

    Raises:
        InputError: neither a film nor a folder of pictures, or no picture in the range. That a film's range
            is empty shows when it is read.
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
    """Number of the first frame shown at or after the video's start, at a constant rate."""
    return math.ceil((video.start or 0) * fps - 1e-6)


def _pictures(video: VideoInput) -> tuple[Path, ...]:
    """The files of a picture sequence within its range, in natural order (2 before 10).

    Raises:
        InputError: there are none.
    """
    def order(path: Path) -> tuple[str, str]:
        name = path.relative_to(video.path).as_posix()
        return re.sub(r"\d+", lambda digits: digits[0].zfill(20), name), name

    pictures = sorted((path for path in video.path.glob(video.pictures)
                       if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")), key=order)
    if not pictures:
        raise InputError(f"{video.path}: expected a video or a folder of numbered pictures, found a folder without "
                         "pictures; name the folder that holds them")
    start, end = video.start or 0, np.inf if video.end is None else video.end
    chosen = tuple(path for index, path in enumerate(pictures) if start <= index / PICTURES_FPS < end)
    if not chosen:
        until = "the end" if video.end is None else f"{end:g} s"
        raise InputError(f"{video.path}: expected a picture from {start:g} s to {until}, found none; the "
                         f"{len(pictures)} pictures last {len(pictures) / PICTURES_FPS:.2f} s, choose a part of it")
    return chosen
