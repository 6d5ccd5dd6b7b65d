"""Find the videos that a user's inputs name, with the person and the time range of each.

Inputs are files, folders, glob patterns, manifests, and three data sets in their original layout (`video_names`).
"""

import gc
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from durian_jax.errors import InputError, cut
from durian_jax.prepare.manifests import MANIFEST_COLUMNS, read_manifest
from durian_jax.prepare.video_names import CELEBV_INFO, LAYOUTS, VideoInput, in_celebv, recognise, with_names
from durian_jax.tables import TABLE_SUFFIXES
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, local_path

__all__ = ["LAYOUTS", "VideoInput", "find_inputs"]

# A folder with fewer numbered pictures holds photos, not a video.
_LEAST_PICTURES = 8

# If more files of one folder are looked up, list the folder once.
_FEW_FILES = 64


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
    with _without_garbage_collection():
        return _find(inputs, layout)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Do not search for garbage while millions of objects are made, which would take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _find(inputs: Sequence[str | Path], layout: str) -> list[VideoInput]:
    listed, found, lines, real = [], {}, {}, _RealPaths()
    in_celebv.cache_clear()
    for given in map(str, inputs):
        rows, files = [], []
        for path in files_and_folders(given):
            if path.is_dir():
                files += _in_folder(path, layout)
            elif path.suffix.lower() in TABLE_SUFFIXES:
                rows += _in_manifest(path, layout, lines, real)
            else:
                files.append(recognise(str(path), layout))
        if layout in ("auto", "celebv-text"):
            files = [video for video in files if not video.place.endswith("/" + CELEBV_INFO)]
        if not rows and not files:
            raise InputError(f"{given}: expected videos, found no file; name a folder that contains videos")
        if layout not in ("auto", "files") and not any(video.identity for video in rows + files):
            raise InputError(f"{given}: expected files in the layout {layout}, found none among "
                             f"{len(rows + files)} files; name the data set's folder or choose the layout auto")
        listed += rows
        for video in files:
            found.setdefault((real(video.place), video.pictures), video)
    if found:
        known = {key[:2] for keys in lines.values() for key in keys}
        listed += [video for key, video in found.items() if key not in known]
    return with_names(listed)


# --- searching ------------------------------------------------------------------------------------------

def files_and_folders(given: str) -> list[Path]:
    """Return the files and folders that one input names.

    Raises:
        InputError: there are none, or it is an address of another machine.
    """
    given = str(local_path(given)) if ":/" in given else given
    names = [given] if os.path.exists(given) else sorted(glob.glob(given, recursive=True))
    if not names:
        raise InputError(f"{cut(given)}: expected a file, a folder or a glob pattern, found nothing; correct the path")
    return [Path(os.path.abspath(name)) for name in names]


def _in_manifest(path: Path, layout: str, lines: dict[Path, dict[tuple, int]], real: "_RealPaths") -> list[VideoInput]:
    """Return the videos that a manifest lists, and add the line of each range to `lines`."""
    videos, mine = [], lines.setdefault(path, {})
    for number, video in read_manifest(path, layout):
        key = real(video.place), video.pictures, video.start, video.end
        for other, known in lines.items():
            if key in known:
                raise InputError(f"{path}, line {number}: {video.place} is listed with the same range in {other}, line "
                                 f"{known[key]}; remove one")
        mine[key] = number
        videos.append(video)
    if not videos:
        raise InputError(f"{path}: expected rows with {', '.join(MANIFEST_COLUMNS)}, found none; add a row per video")
    return videos


def _in_folder(root: Path, layout: str) -> list[VideoInput]:
    """Return the videos at all levels of a folder."""
    found = {}
    for folder, files in _folders(root):
        videos = [recognise(str(file), layout) for file in files]
        suffixes = [file.suffix.lower() for file in files]
        pictures = {video: file for video, file, suffix in zip(videos, files, suffixes, strict=True)
                    if not video.identity and suffix in IMAGE_SUFFIXES}
        whole = recognise(str(folder), layout)
        numbered = (len(pictures) >= _LEAST_PICTURES and all(file.stem[-1].isdigit() for file in pictures.values())
                    and not any(suffix in VIDEO_SUFFIXES for suffix in suffixes))
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


class _RealPaths:
    """Real paths of files. A folder of many files is listed once, instead of one look-up per file."""

    def __init__(self):
        self._folders: dict[str, str] = {}
        self._asked: Counter[str] = Counter()
        self._links: dict[str, set[str]] = {}  # of listed folders

    def __call__(self, path: str) -> str:
        folder, _, file = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or "/").rstrip("/")
        links = self._links.get(folder)
        if links is None:
            self._asked[folder] += 1
            if self._asked[folder] > _FEW_FILES:
                links = self._links[folder] = _links_in(folder or "/")
        if os.path.islink(path) if links is None else file in links:
            return os.path.realpath(path)
        real = self._folders[folder]
        return path if real == folder else f"{real}/{file}"  # reuse the string: millions of copies fill the memory


def _links_in(folder: str) -> set[str]:
    """Return the names of the symbolic links in a folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # no such folder: its videos are rejected later
        return set()
