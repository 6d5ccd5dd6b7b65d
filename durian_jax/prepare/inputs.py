"""Find the videos that a user's inputs name, with the person and the time range of each.

Inputs are files, folders, glob patterns, manifests, and three data sets in their original layout:

    VFHQ         Clip+<video>+P<person>+C<clip>+F<first>-<last>, a folder of pictures or an .mp4 file
    CelebV-Text  <video>_<number>.mp4 beside or anywhere below celebvtext_info.json
    NeRSemble    <participant>/sequences/<sequence>/images/cam_<serial>.mp4 (version 2)
                 <participant>/sequences/<sequence>/timesteps/frame_00000/images/cam_<serial>.jpg (version 1)
                 <participant>/<sequence>/images/cam_<serial>_000000.jpg (version 1, flat)
"""

import glob
import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from durian_jax.errors import InputError, cut, shown
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.tables import TABLE_SUFFIXES, read_table
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES

LAYOUTS = ("auto", "files", "vfhq", "celebv-text", "nersemble")

MANIFEST_COLUMNS = ("path", "start", "end", "identity", "labels")

# A folder with fewer numbered pictures holds photos, not a video.
_LEAST_PICTURES = 8

_CELEBV_INFO = "celebvtext_info.json"

# <video> is the YouTube id, which may itself contain +, - and _.
_VFHQ = re.compile(r"Clip\+(?P<video>.+)\+P(?P<person>\d+)\+C\d+\+F\d+-\d+")
_CELEBV = re.compile(r"(?P<video>[A-Za-z0-9_-]{11})_\d+\.mp4")
_NERSEMBLE = re.compile(r".*/(\d+)/(?:sequences/)?([^/]+)/(timesteps/frame_\d+/)?images/cam_(\d+)(_\d+)?(\.\w+)")

# A file name has at most 255 bytes, and longer names are derived from this one.
_LONGEST_NAME = 120
_LONGEST_IDENTITY = 200
_LONGEST_PATH = 4096  # bytes, on Linux


@dataclass(frozen=True)
class VideoInput:
    """One video of one person, or a part of a video.

    Attributes:
        path: absolute path of a video file or a folder of numbered pictures.
        name: unique within the run, safe as a part of a file name, and the same for the same inputs.
        identity: name of the person; clips with equal identity show the same person.
        start, end: range to use, in seconds since the first frame; None leaves that side open.
        labels: all attribute kinds that the person wears; None: unknown.
        pictures: glob pattern of the frames, for a folder.
    """

    path: Path
    name: str
    identity: str
    start: float | None = None
    end: float | None = None
    labels: tuple[str, ...] | None = None
    pictures: str = "*"


def find_inputs(inputs: Sequence[str | Path], layout: str = "auto") -> list[VideoInput]:
    """Return the videos that the inputs name, each once; videos from manifests come first.

    A folder is searched at all levels; hidden files and folders are skipped. A folder with at least 8 numbered
    pictures and no video file is one video. Every other file counts as a video. If it is not one, it is rejected
    later with a reason. If a manifest lists a file, only the listed parts are used.

    A manifest has the columns `path` (relative to the manifest), `start`, `end` (seconds), `identity` and `labels`.
    Labels are attribute kinds; CSV separates them by spaces or semicolons, and "none" means that the person wears
    none. All columns except `path` may be missing or empty.

    Args:
        inputs: files, folders, glob patterns, and manifests (.csv, .jsonl).
        layout: one of `LAYOUTS`. "auto" recognises the names of all data sets, "files" recognises none, and any other
            value recognises the names of that data set.

    Raises:
        InputError: the layout is unknown, an input names nothing or nothing of that layout, a folder is unreadable,
            or a manifest is invalid.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    listed, found, lines = [], {}, {}
    for given in map(str, inputs):
        rows, files = [], []
        for path in _named(given):
            if path.is_dir():
                files += _in_folder(path, layout)
            elif path.suffix.lower() in TABLE_SUFFIXES:
                rows += _in_manifest(path, layout, lines)
            else:
                files.append(_recognise(path, layout))
        if layout in ("auto", "celebv-text"):
            files = [video for video in files if video.path.name != _CELEBV_INFO]
        if not rows and not files:
            raise InputError(f"{given}: expected videos, found no file; name a folder that contains videos")
        if layout not in ("auto", "files") and not any(video.identity for video in rows + files):
            raise InputError(f"{given}: expected files in the layout {layout}, found none among "
                             f"{len(rows + files)} files; name the data set's folder or choose the layout auto")
        listed += rows
        for video in files:
            found.setdefault((os.path.realpath(video.path), video.pictures), video)
    known = {key[:2] for key in lines}
    return _with_names(listed + [video for key, video in found.items() if key not in known])


# ------------------------------------------------------------------------------------------ searching


def _named(given: str) -> list[Path]:
    """Return the files and folders that one input names."""
    names = [given] if os.path.exists(given) else sorted(glob.glob(given, recursive=True))
    if not names:
        raise InputError(f"{cut(given)}: expected a file, a folder or a glob pattern, found nothing; correct the path")
    return [Path(os.path.abspath(name)) for name in names]


def _in_folder(root: Path, layout: str) -> list[VideoInput]:
    """Return the videos at all levels of a folder."""
    found = {}
    for folder, files in _folders(root):
        videos = [_recognise(file, layout) for file in files]
        pictures = {video for video in videos if not video.identity and video.path.suffix.lower() in IMAGE_SUFFIXES}
        whole = _recognise(folder, layout)
        numbered = (len(pictures) >= _LEAST_PICTURES and all(video.path.stem[-1].isdigit() for video in pictures)
                    and not any(file.suffix.lower() in VIDEO_SUFFIXES for file in files))
        if pictures and (whole.identity or numbered):
            videos = [whole] + [video for video in videos if video not in pictures]
        found |= dict.fromkeys(videos)
    return list(found)


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield `root` and its subfolders with their files; follow links, but yield each folder once."""
    def refuse(error: OSError):
        if isinstance(error, FileNotFoundError):
            return  # another program has removed its temporary folder
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); make it readable or move it away")

    seen = set()
    for folder, inner, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield Path(folder), [Path(folder, name) for name in sorted(names) if not name.startswith(".")]


def _recognise(path: Path, layout: str) -> VideoInput:
    """Return the video of a file or folder, with an empty identity if the name matches no data set."""
    # Other files keep their suffix, so that notes beside a video (a.mp4, a.txt) do not take its name.
    name = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    if layout in ("auto", "vfhq") and (match := _VFHQ.fullmatch(name)):
        return VideoInput(path, name, f"{match['video']}+P{match['person']}")
    if layout in ("auto", "celebv-text") and (match := _CELEBV.fullmatch(path.name)) and (
            layout != "auto" or any(os.path.isfile(folder / _CELEBV_INFO) for folder in path.parents)):
        return VideoInput(path, name, match["video"])
    if layout in ("auto", "nersemble") and (match := _NERSEMBLE.fullmatch(path.as_posix())):
        participant, sequence, step, serial, number, suffix = match.groups()
        video = VideoInput(path, f"{participant}_{sequence}_{serial}", participant)
        if suffix == ".mp4" and not step and not number:
            return video
        if suffix in (".jpg", ".png") and number and not step:
            return replace(video, path=path.parent, pictures=f"cam_{serial}_*{suffix}")
        if suffix in (".jpg", ".png") and step and not number:
            return replace(video, path=path.parents[2], pictures=f"frame_*/images/cam_{serial}{suffix}")
    return VideoInput(path, name, "")


# ------------------------------------------------------------------------------------------ manifests


def _in_manifest(path: Path, layout: str, lines: dict[tuple, str]) -> list[VideoInput]:
    """Return the videos that a manifest lists, and add the place of each range to `lines`."""
    videos = []
    for where, row in read_table(path, MANIFEST_COLUMNS[:1], MANIFEST_COLUMNS[1:]):
        video = _from_row(where, row, path.parent, layout)
        key = os.path.realpath(video.path), video.pictures, video.start, video.end
        if key in lines:
            raise InputError(f"{where}: {video.path} is listed with the same range in {lines[key]}; remove one")
        lines[key] = where
        videos.append(video)
    if not videos:
        raise InputError(f"{path}: expected rows with {', '.join(MANIFEST_COLUMNS)}, found none; add a row per video")
    return videos


def _from_row(where: str, row: dict, folder: Path, layout: str) -> VideoInput:
    path, identity = row.get("path"), row.get("identity")
    if not isinstance(path, str) or not path.strip() or not _is_path(str(folder / path)):
        raise InputError(f"{where}: expected a path, found {shown(path)}")
    if not isinstance(identity, str | int | None) or isinstance(identity, bool) or not _is_name(str(identity)):
        raise InputError(f"{where}: identity: expected a string of at most {_LONGEST_IDENTITY} characters or an "
                         f"integer, found {shown(identity)}")
    start, end = (_seconds(where, column, row.get(column)) for column in ("start", "end"))
    if end is not None and end <= (start or 0):
        raise InputError(f"{where}: expected an end after the start, found {start or 0:g} s to {end:g} s")
    video = _recognise(Path(os.path.abspath(folder / path.strip())), layout)
    identity = "" if identity is None else str(identity).strip()
    return replace(video, start=start, end=end, identity=identity or video.identity,
                   labels=_labels(where, row.get("labels")))


def _is_path(text: str) -> bool:
    """Whether a file system can have this path."""
    try:
        return "\0" not in text and len(os.fsencode(os.path.abspath(text))) < _LONGEST_PATH and all(
            len(os.fsencode(part)) <= 255 for part in Path(text).parts)
    except UnicodeEncodeError:
        return False


def _is_name(text: str) -> bool:
    """Whether a record can hold this name of a person, and a page can show it."""
    return len(text) <= _LONGEST_IDENTITY and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text)


def _seconds(where: str, column: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{where}: {column}: expected seconds of at least 0, such as 12.5, found {shown(value)}")
    return seconds


def _labels(where: str, value: object) -> tuple[str, ...] | None:
    words = re.findall(r"[^;\s]+", value) if isinstance(value, str) else value
    if words is None or value == "":
        return None
    if words == ["none"]:
        return ()
    if not isinstance(words, list) or not all(word in ATTRIBUTE_KINDS for word in words):
        raise InputError(f"{where}: labels: expected some of {', '.join(ATTRIBUTE_KINDS)}, or 'none', found "
                         f"{shown(value)}")
    return tuple(kind for kind in ATTRIBUTE_KINDS if kind in words)


# ---------------------------------------------------------------------------------------------- names


def _with_names(videos: list[VideoInput]) -> list[VideoInput]:
    """Give the videos unique names; an unknown person is named after the file."""
    names = _different({(video.path, video.pictures): video.name for video in videos})
    named = []
    for video in videos:
        name, part = names[video.path, video.pictures], ""
        if video.start is not None or video.end is not None:
            # The names contain no @ so far, so the parts of one file cannot clash with another file.
            part = f"@{'start' if video.start is None else video.start}-{'end' if video.end is None else video.end}"
        identity = video.identity.encode(errors="replace").decode()  # names of files may be no valid text
        named.append(replace(video, name=name + part, identity=identity or name))
    return named


def _different(labels: dict[tuple[Path, str], str]) -> dict[tuple[Path, str], str]:
    """Return a safe, unique name for each label: the label, after as many of its folders as needed."""
    names, step = {}, 0
    while waiting := {key: label for key, label in labels.items() if key not in names}:
        tried = {key: _name(*key, label, step) for key, label in waiting.items()}
        count = Counter([*tried.values(), *names.values()])
        names |= {key: name for key, name in tried.items() if count[name] == 1}
        step += 1
    return names


def _name(path: Path, pictures: str, label: str, step: int) -> str:
    """Return the label after `step` of its folders, or the label and a hash of its path if that is not possible."""
    folders = path.parts[1:-1]
    safe = re.sub(r"[^\w.+-]", "_", "_".join([*folders[max(0, len(folders) - step):], label])).lstrip(".")
    if safe and step <= len(folders) and len(safe.encode()) <= _LONGEST_NAME:
        return safe
    short = re.sub(r"[^\w+-]", "_", label).encode()[:_LONGEST_NAME - 20].decode(errors="ignore")
    return f"{short}-{hashlib.sha1(os.fsencode(path / pictures)).hexdigest()[:10]}"
