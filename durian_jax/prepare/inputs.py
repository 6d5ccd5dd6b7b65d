"""What a user names -> the list of videos to prepare, with the person and the range of each.

Understands files, folders, glob patterns, manifests and three data sets as their authors lay them out:

    VFHQ         Clip+<video>+P<person>+C<clip>+F<first>-<last>, a folder of pictures or an .mp4 file
    CelebV-Text  <video>_<number>.mp4 beside or anywhere below celebvtext_info.json
    NeRSemble    <participant>/sequences/<sequence>/images/cam_<serial>.mp4 (version 2)
                 <participant>/sequences/<sequence>/timesteps/frame_00000/images/cam_<serial>.jpg (version 1)
                 <participant>/<sequence>/images/cam_<serial>_000000.jpg (version 1, flat)
"""

import csv
import glob
import hashlib
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES

LAYOUTS = ("auto", "files", "vfhq", "celebv-text", "nersemble")

MANIFEST_SUFFIXES = (".csv", ".jsonl")
MANIFEST_COLUMNS = ("path", "start", "end", "identity", "labels")

# Fewer numbered pictures in a folder are photos, not a video.
_LEAST_PICTURES = 8

_CELEBV_INFO = "celebvtext_info.json"

# <video>, YouTube's name of it, may hold +, - and _ itself.
_VFHQ = re.compile(r"Clip\+(?P<video>.+)\+P(?P<person>\d+)\+C\d+\+F\d+-\d+")
_CELEBV = re.compile(r"(?P<video>[A-Za-z0-9_-]{11})_\d+\.mp4")
_NERSEMBLE = re.compile(r".*/(\d+)/(?:sequences/)?([^/]+)/(timesteps/frame_\d+/)?images/cam_(\d+)(_\d+)?(\.\w+)")

# A file's name has 255 bytes at most, and others are made from this one.
_LONGEST_NAME = 120


@dataclass(frozen=True)
class VideoInput:
    """One video of one person, or a part of one.

    Attributes:
        path: absolute; a video file, or a folder of numbered pictures.
        name: unique within the run, safe as a part of a file's name, and the same for the same inputs.
        identity: whose face; clips with equal identity show the same person.
        start, end: the part to use, in seconds since the first frame; None leaves that side open.
        labels: attribute kinds that the person certainly wears, and no others; None where nobody said.
        pictures: of a folder, the glob pattern of its frames.
    """

    path: Path
    name: str
    identity: str
    start: float | None = None
    end: float | None = None
    labels: tuple[str, ...] | None = None
    pictures: str = "*"


def find_inputs(inputs: Sequence[str | Path], layout: str = "auto") -> list[VideoInput]:
    """The videos that inputs stand for, each once; those of manifests first.

    A folder is searched at all levels, without what is hidden. At least 8 numbered pictures and no video in
    one folder are one video; any other file is one of its own, even if it turns out to be none, so that it
    can be rejected with its reason. Of a file that a manifest lists, only the listed parts count.

    A manifest has the columns `path` (relative to the manifest), `start`, `end` (seconds), `identity` and
    `labels` (attribute kinds, in CSV separated by spaces or semicolons; "none" for certainly none); all but
    `path` may be missing or empty.

    Args:
        inputs: files, folders, glob patterns, and manifests (.csv, .jsonl).
        layout: one of `LAYOUTS`; "auto" tells each file by its name, "files" trusts no name, any other
            knows the names of that data set only.

    Raises:
        InputError: an unknown layout, an input that names nothing or nothing of that layout, an unreadable
            folder, a bad manifest.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    listed, found, lines = [], {}, {}
    for given in map(str, inputs):
        rows, files = [], []
        for path in _named(given):
            if path.is_dir():
                files += _in_folder(path, layout)
            elif path.suffix.lower() in MANIFEST_SUFFIXES:
                rows += _in_manifest(path, layout, lines)
            else:
                files.append(_recognise(path, layout))
        if layout in ("auto", "celebv-text"):
            files = [video for video in files if video.path.name != _CELEBV_INFO]
        if not rows and not files:
            raise InputError(f"{given}: expected videos, found no file; name a folder that holds some")
        if layout not in ("auto", "files") and not any(video.identity for video in rows + files):
            raise InputError(f"{given}: expected files laid out as {layout}, found none among "
                             f"{len(rows + files)}; name the data set's own folder or choose the layout auto")
        listed += rows
        for video in files:
            found.setdefault((os.path.realpath(video.path), video.pictures), video)
    known = {key[:2] for key in lines}
    return _with_names(listed + [video for key, video in found.items() if key not in known])


# ------------------------------------------------------------------------------------------ searching


def _named(given: str) -> list[Path]:
    """The files and folders that one input names."""
    names = [given] if os.path.exists(given) else sorted(glob.glob(given, recursive=True))
    if not names:
        raise InputError(f"{given}: expected a file, a folder or a pattern of some, found nothing of that name")
    return [Path(os.path.abspath(name)) for name in names]


def _in_folder(root: Path, layout: str) -> list[VideoInput]:
    """The videos of a folder at all levels."""
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
    """Folders from `root` on, each with its files; linked ones too, but each once."""
    def refuse(error: OSError):
        if isinstance(error, FileNotFoundError):
            return  # removed since it was seen: another program's temporary folder
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
    """A file or folder as its name tells it; without identity where the name says nothing."""
    # Whatever is no video keeps its ending: notes beside a video (a.mp4, a.txt) do not contest its name.
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
    """The videos that a manifest lists; `lines` says where each range was listed, and is added to."""
    videos = []
    for where, row in _rows(path):
        video = _from_row(where, row, path.parent, layout)
        key = os.path.realpath(video.path), video.pictures, video.start, video.end
        if key in lines:
            raise InputError(f"{where}: {video.path} is listed with the same range in {lines[key]}; remove one")
        lines[key] = where
        videos.append(video)
    if not videos:
        raise InputError(f"{path}: expected rows with {', '.join(MANIFEST_COLUMNS)}, found none")
    return videos


def _rows(path: Path) -> Iterator[tuple[str, dict]]:
    """Every row of a manifest, and where it stands."""
    number = 0
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            columns, reader = None, csv.reader(io.StringIO(text), strict=True)
            for cells in reader:
                number, cells = reader.line_num, [cell.strip() for cell in cells]
                if columns is None:
                    columns = cells
                    _check_columns(f"{path}, line {number}", columns)
                elif len(cells) > len(columns):
                    raise InputError(f"{path}, line {number}: expected {len(columns)} cells at most, found "
                                     f"{len(cells)}; put quotes around a cell that holds a comma")
                elif any(cells):
                    yield f"{path}, line {number}", dict(zip(columns, cells, strict=False))
        else:
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise InputError(f"{path}, line {number}: expected an object, found {line[:60]}")
                    _check_columns(f"{path}, line {number}", list(row))
                    yield f"{path}, line {number}", row
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a manifest in UTF-8, found one that cannot be read ({error})") from error
    except (csv.Error, json.JSONDecodeError) as error:
        number += isinstance(error, csv.Error)  # the row after the last good one
        raise InputError(f"{path}, line {number}: expected a row, found none that can be read ({error})") from error


def _check_columns(where: str, columns: list[str]) -> None:
    unknown = [name for name in columns if name not in MANIFEST_COLUMNS]
    if unknown or "path" not in columns or len(set(columns)) < len(columns):
        raise InputError(f"{where}: expected the columns path and, if known, {', '.join(MANIFEST_COLUMNS[1:])}, each "
                         f"once; found {'unknown: ' if unknown else ''}{', '.join(unknown or columns)}")


def _from_row(where: str, row: dict, folder: Path, layout: str) -> VideoInput:
    path, identity = row.get("path"), row.get("identity")
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise InputError(f"{where}: expected a path, found {path!r}")
    if not isinstance(identity, str | int | None) or isinstance(identity, bool):
        raise InputError(f"{where}: identity: expected a word or number, found {identity!r}")
    start, end = (_seconds(where, column, row.get(column)) for column in ("start", "end"))
    if end is not None and end <= (start or 0):
        raise InputError(f"{where}: expected an end after the start, found {start or 0:g} s to {end:g} s")
    video = _recognise(Path(os.path.abspath(folder / path.strip())), layout)
    identity = "" if identity is None else str(identity).strip()
    return replace(video, start=start, end=end, identity=identity or video.identity,
                   labels=_labels(where, row.get("labels")))


def _seconds(where: str, column: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{where}: {column}: expected seconds from 0 on, such as 12.5, found {value!r}")
    return seconds


def _labels(where: str, value: object) -> tuple[str, ...] | None:
    words = re.findall(r"[^;\s]+", value) if isinstance(value, str) else value
    if words is None or value == "":
        return None
    if words == ["none"]:
        return ()
    if not isinstance(words, list) or not all(word in ATTRIBUTE_KINDS for word in words):
        raise InputError(f"{where}: labels: expected some of {', '.join(ATTRIBUTE_KINDS)}, or none, found {value!r}")
    return tuple(kind for kind in ATTRIBUTE_KINDS if kind in words)


# ---------------------------------------------------------------------------------------------- names


def _with_names(videos: list[VideoInput]) -> list[VideoInput]:
    """The same videos with names that differ; a person nobody named is called after the file."""
    names = _different({(video.path, video.pictures): video.name for video in videos})
    named = []
    for video in videos:
        name, part = names[video.path, video.pictures], ""
        if video.start is not None or video.end is not None:
            # No name holds an @ already, so the parts of one file cannot clash with another file.
            part = f"@{'start' if video.start is None else video.start}-{'end' if video.end is None else video.end}"
        named.append(replace(video, name=name + part, identity=video.identity or name))
    return named


def _different(labels: dict[tuple[Path, str], str]) -> dict[tuple[Path, str], str]:
    """A safe name for each label: itself, or with as much of its path as tells it from the others."""
    names, step = {}, 0
    while waiting := {key: label for key, label in labels.items() if key not in names}:
        tried = {key: _name(*key, label, step) for key, label in waiting.items()}
        count = Counter([*tried.values(), *names.values()])
        names |= {key: name for key, name in tried.items() if count[name] == 1}
        step += 1
    return names


def _name(path: Path, pictures: str, label: str, step: int) -> str:
    """The label with so many of its folders; where those do not exist or grow too long, with a hash of its path."""
    folders = path.parts[1:-1]
    safe = re.sub(r"[^\w.+-]", "_", "_".join([*folders[max(0, len(folders) - step):], label])).lstrip(".")
    if safe and step <= len(folders) and len(safe.encode()) <= _LONGEST_NAME:
        return safe
    short = re.sub(r"[^\w+-]", "_", label).encode()[:_LONGEST_NAME - 20].decode(errors="ignore")
    return f"{short}-{hashlib.sha1(os.fsencode(path / pictures)).hexdigest()[:10]}"
