"""A video of an input: its file, its person, and its name, which is unique within the run.

The names of three data sets are recognised:

    VFHQ         Clip+<video>+P<person>+C<clip>+F<first>-<last>, a folder of pictures or an .mp4 file
    CelebV-Text  <video>_<number>.mp4 beside or anywhere below celebvtext_info.json
    NeRSemble    <participant>/sequences/<sequence>/images/cam_<serial>.mp4 (version 2)
                 <participant>/sequences/<sequence>/timesteps/frame_00000/images/cam_<serial>.jpg (version 1)
                 <participant>/<sequence>/images/cam_<serial>_000000.jpg (version 1, flat)
"""

import hashlib
import os
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from durian_jax.video import VIDEO_SUFFIXES

LAYOUTS = ("auto", "files", "vfhq", "celebv-text", "nersemble")

CELEBV_INFO = "celebvtext_info.json"

# <video> is the YouTube id, which may itself contain +, - and _.
_VFHQ = re.compile(r"Clip\+(?P<video>.+)\+P(?P<person>\d+)\+C\d+\+F\d+-\d+")
_CELEBV = re.compile(r"(?P<video>[A-Za-z0-9_-]{11})_\d+\.mp4")
_NERSEMBLE = re.compile(r".*/(\d+)/(?:sequences/)?([^/]+)/(timesteps/frame_\d+/)?images/cam_(\d+)(_\d+)?(\.\w+)")

# A file name has at most 255 bytes, and longer names are derived from this one.
_LONGEST_NAME = 120
_SAFE_NAME = re.compile(r"(?!\.)[\w.+-]+")


class VideoInput(NamedTuple):
    """One video of one person, or a part of a video. A manifest may list millions, so the fields are plain values.

    Attributes:
        place: absolute path of a video file or a folder of numbered pictures.
        name: unique within the run, safe as a part of a file name, and the same for the same inputs.
        identity: name of the person; clips with equal identity show the same person.
        start, end: range to use, in seconds since the first frame; None leaves that side open.
        labels: all attribute kinds that the person wears; None: unknown.
        pictures: glob pattern of the frames, for a folder.
    """

    place: str
    name: str
    identity: str
    start: float | None = None
    end: float | None = None
    labels: tuple[str, ...] | None = None
    pictures: str = "*"

    @property
    def path(self) -> Path:
        """`place` as a path."""
        return Path(self.place)


def recognise(path: str, layout: str, identity: str = "", start: float | None = None, end: float | None = None,
              labels: tuple[str, ...] | None = None) -> VideoInput:
    """Return the video of a file or folder, see `with_names`. Its identity is empty if it is neither given nor known.

    Args:
        path: absolute.
        layout: one of `LAYOUTS`.
        identity, start, end, labels: what a manifest says of this video, see `VideoInput`.
    """
    folder, _, file = path.rpartition("/")
    stem, _, suffix = file.rpartition(".")
    # Other files keep their suffix, so that notes beside a video (a.mp4, a.txt) do not take its name.
    name = stem if stem and f".{suffix}".lower() in VIDEO_SUFFIXES else file
    if name.startswith("Clip+") and layout in ("auto", "vfhq") and (match := _VFHQ.fullmatch(name)):
        return VideoInput(path, name, identity or f"{match['video']}+P{match['person']}", start, end, labels)
    if file[11:12] == "_" and layout in ("auto", "celebv-text") and (match := _CELEBV.fullmatch(file)) and (
            layout != "auto" or in_celebv(folder)):
        return VideoInput(path, name, identity or match["video"], start, end, labels)
    if "/images/cam_" in path and layout in ("auto", "nersemble") and (match := _NERSEMBLE.fullmatch(path)):
        participant, sequence, step, serial, number, suffix = match.groups()
        given = f"{participant}_{sequence}_{serial}", identity or participant, start, end, labels
        if suffix == ".mp4" and not step and not number:
            return VideoInput(path, *given)
        if suffix in (".jpg", ".png") and number and not step:
            return VideoInput(folder, *given, f"cam_{serial}_*{suffix}")
        if suffix in (".jpg", ".png") and step and not number:
            return VideoInput(path.rsplit("/", 3)[0], *given, f"frame_*/images/cam_{serial}{suffix}")
    return VideoInput(path, name, identity, start, end, labels)


@lru_cache(1 << 16)
def in_celebv(folder: str) -> bool:
    """Whether a folder lies in a download of CelebV-Text."""
    return any(os.path.isfile(place / CELEBV_INFO) for place in (Path(folder), *Path(folder).parents))


def with_names(videos: list[VideoInput]) -> list[VideoInput]:
    """Give videos, which still have the names of their files, unique names. Name unknown people after the file."""
    names = _different({(video.place, video.pictures): video.name for video in videos})
    named = []
    for place, _, identity, start, end, labels, pictures in videos:
        name = full = names[place, pictures]
        if not identity.isascii():
            identity = identity.encode(errors="replace").decode()  # names of files may be no valid text
        if start is not None or end is not None:
            # The names contain no @ so far, so the parts of one file cannot clash with another file.
            full = f"{name}@{'start' if start is None else start}-{'end' if end is None else end}"
        named.append(VideoInput(place, full, identity or name, start, end, labels, pictures))
    return named


def _different(labels: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Return a safe, unique name for each label: the label, after as many of its folders as needed."""
    if len(set(labels.values())) == len(labels) and all(map(_is_safe, labels.values())):  # the usual case, for millions
        return labels
    names, step, waiting = {}, 0, labels
    while waiting:
        tried = {key: _name(*key, label, step) for key, label in waiting.items()}
        count = Counter(tried.values())
        count.update(names.values())
        names |= {key: name for key, name in tried.items() if count[name] == 1}
        waiting = {key: label for key, label in waiting.items() if key not in names}
        step += 1
    return names


def _is_safe(label: str) -> bool:
    return len(label) <= _LONGEST_NAME // 4 and _SAFE_NAME.fullmatch(label) is not None


def _name(path: str, pictures: str, label: str, step: int) -> str:
    """Return the label after `step` of its folders, or the label and a hash of its path if that is not possible."""
    if not step and _is_safe(label):
        return label
    folders = path.split("/")[1:-1]
    safe = re.sub(r"[^\w.+-]", "_", "_".join([*folders[max(0, len(folders) - step):], label])).lstrip(".")
    if safe and step <= len(folders) and len(safe.encode()) <= _LONGEST_NAME:
        return safe
    short = re.sub(r"[^\w+-]", "_", label).encode()[:_LONGEST_NAME - 20].decode(errors="ignore")
    return f"{short}-{hashlib.sha1(os.fsencode(f'{path}/{pictures}')).hexdigest()[:10]}"
