"""User-made masks."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import cv2
import numpy as np

from durian_jax.errors import InputError, cut
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, iterate_video, read_image
from durian_jax.video.decoders import native_messages


class UserMasks:
    """User-made masks of the videos; white (> 127) marks the attribute.

    The masks of each video and kind have one of two forms, both in the size of the source frames:

        FOLDER/<video name>/<kind>/<frame number>.png   counted from 0, with any number of leading zeros
        FOLDER/<video name>/<kind>.mp4                  as many frames as the source

    The video's name has no suffix. The file types are those of `video.read_image` and `video.iterate_video`.

    Raises:
        InputError: the folder does not exist, a kind is unknown or given twice, or a picture has no frame number.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not os.path.isdir(folder):
            raise InputError(f"{cut(str(folder))}: expected a folder of masks, FOLDER/<video name>/<kind>/<frame "
                             "number>.png or FOLDER/<video name>/<kind>.mp4; no such folder")
        # Video -> kind -> its mask video, or its pictures by frame number.
        self._given: dict[str, dict[str, Path | dict[int, Path]]] = {}
        self._reading, self._readers = "", {}
        for video in filter(Path.is_dir, _visible(self.folder)):
            kinds = self._given[video.name] = {}
            for path in _visible(video):
                kind = path.name if path.is_dir() else path.stem
                if kind not in ATTRIBUTE_KINDS or not (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
                    raise InputError(f"{path}: expected a folder of pictures or a video ({', '.join(VIDEO_SUFFIXES)}) "
                                     f"named after one of the kinds {', '.join(ATTRIBUTE_KINDS)}; rename or remove it")
                if kind in kinds:
                    raise InputError(f"{path}: masks for {kind} are given twice in {video}; remove one of them")
                kinds[kind] = _numbered(path) if path.is_dir() else path

    def kinds(self, video_name: str) -> tuple[str, ...]:
        """Return the kinds with masks for a video; empty for a video without a folder."""
        return tuple(kind for kind in ATTRIBUTE_KINDS if kind in self._given.get(video_name, {}))

    def problems(self, video_names: Iterable[str]) -> list[str]:
        """Return a line per folder, picture or video in FOLDER that matches no input and is probably misspelt."""
        names, lines = set(video_names), []
        for path in _visible(self.folder):
            media = path.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES
            if (path.is_dir() and path.name not in names) or (path.is_file() and media):
                close = get_close_matches(path.name, sorted(names), 1)
                lines.append(f"{path}: expected a folder named after an input video, without its suffix"
                             + (f"; did you mean {close[0]}?" if close else ""))
        return lines

    def read(self, video_name: str, kind: str, frame: int, height: int, width: int) -> np.ndarray:
        """Return one (H, W) bool mask. Any order works; it is fast to read one video after another, frame by frame.

        Args:
            video_name: the video's folder in FOLDER.
            kind: attribute kind.
            frame: number of the frame in the source video, from 0.
            height, width: size of the source frames in pixels.

        Raises:
            InputError: the kind has no masks, the frame is missing, or the file is unreadable. Also, the size is
                wrong, or the picture is partly transparent, coloured or contains only 0 and 1.
        """
        attribute_bit(kind)
        if kind not in self.kinds(video_name):
            raise InputError(f"{self.folder / video_name}: no masks for {kind}; add a folder {kind} or a video "
                             f"{kind}.mp4")
        source = self._given[video_name][kind]
        if isinstance(source, Path):
            if self._reading != video_name:  # only the current video's files stay open
                self._reading, self._readers = video_name, {}
            where = f"{source}, frame {frame}"
            image = self._readers.setdefault(kind, _MaskVideo(source)).read(frame)
        elif frame in source:
            where, image = source[frame], _read_mask(source[frame])
        else:
            raise InputError(f"{self.folder / video_name / kind}: no mask for frame {frame}; found {len(source)} masks "
                             f"from {min(source)} to {max(source)}; add {frame}.png (black if {kind} is not visible)")
        if image.shape[:2] != (height, width):
            raise InputError(f"{where}: expected the size of the source video, {width} x {height}, found "
                             f"{image.shape[1]} x {image.shape[0]} (width x height); create the masks in this size")
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) > 127


class _MaskVideo:
    """A video that is read forwards, one frame at a time; a request for an earlier frame starts again."""

    def __init__(self, path: Path):
        self._path, self._frames, self._last, self._image = path, None, -1, None

    def read(self, frame: int) -> np.ndarray:
        """Return the frame of this number, (H, W, 3) uint8 RGB."""
        if self._frames is None or frame < self._last:
            self._frames, self._last, self._image = iterate_video(self._path), -1, None
        while self._last < frame:
            self._image = next(self._frames, None)
            if self._image is None:
                break
            self._last += 1
        if self._image is None:
            self._frames = None
            raise InputError(f"{self._path}: no mask for frame {frame}; found {self._last + 1} frames; expected as "
                             "many as the source video has")
        return self._image


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _numbered(folder: Path) -> dict[int, Path]:
    """Map each frame number to its picture."""
    found = {}
    for path in _visible(folder):
        if not re.fullmatch("[0-9]+", path.stem) or path.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{path}: expected pictures named by frame number, such as 0.png or 00012.png; "
                             "rename or remove it")
        if int(path.stem) in found:
            raise InputError(f"{path}: frame {int(path.stem)} is also in {found[int(path.stem)].name}; remove one file")
        found[int(path.stem)] = path
    if not found:
        raise InputError(f"{folder}: expected pictures such as 0.png, found none; add them or remove the folder")
    return found


def _read_mask(path: Path) -> np.ndarray:
    """Read a mask, (H, W, 3) uint8 RGB; refuse pictures that would silently mark all pixels or none."""
    image = read_image(path)
    with native_messages():
        raw = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    transparent = raw.ndim == 3 and raw.shape[2] == 4 and raw[..., 3].min() < np.iinfo(raw.dtype).max
    if transparent or np.ptp(image, axis=2).max() > 64:
        raise InputError(f"{path}: expected white on black, found {'transparent parts' if transparent else 'colours'}; "
                         "save the mask as a grey picture, white where the attribute is")
    if image.max() == 1:
        raise InputError(f"{path}: expected white (255) for the attribute, found the values 0 and 1; "
                         "multiply the mask by 255")
    return image
