"""Manifests: tables of videos with time range, person and labels. They are read row by row, so millions fit."""

import math
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from durian_jax.errors import InputError, shown
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.prepare.video_names import VideoInput, recognise
from durian_jax.tables import read_table
from durian_jax.video import local_path

MANIFEST_COLUMNS = ("path", "start", "end", "identity", "labels")

_LONGEST_IDENTITY = 200
_LONGEST_PATH, _LONGEST_PART = 4096, 255  # bytes, on Linux
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def read_manifest(path: Path, layout: str) -> Iterator[tuple[int, VideoInput]]:
    """Yield the line and the video of every row, see `inputs.find_inputs`. The videos have no names yet.

    Args:
        path: of the manifest, one of `tables.TABLE_SUFFIXES`.
        layout: one of `video_names.LAYOUTS`.

    Raises:
        InputError: an unreadable or invalid file; names the line.
    """
    folder = os.path.abspath(path.parent)
    for number, row in read_table(path, MANIFEST_COLUMNS[:1], MANIFEST_COLUMNS[1:]):
        try:
            yield number, _from_row(row, folder, layout)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error


def _from_row(row: dict[str, object], folder: str, layout: str) -> VideoInput:
    path, identity = row.get("path"), row.get("identity")
    if not isinstance(path, str) or not (path := path.strip()) or "\0" in path:
        raise InputError(f"expected a path, found {shown(path)}")
    if ":/" in path:
        path = str(local_path(path))
    place = path if path[0] == "/" else f"{folder}/{path}"
    if "//" in place or "/." in place or place[-1] == "/":
        place = os.path.normpath(place)
    if not _is_path(place):
        raise InputError(f"expected a path, found {shown(path)}")
    if not isinstance(identity, str | int | None) or isinstance(identity, bool) or not _is_name(str(identity)):
        raise InputError(f"identity: expected a string of at most {_LONGEST_IDENTITY} characters or an integer, found "
                         f"{shown(identity)}")
    start, end = row.get("start"), row.get("end")
    start = None if start is None or start == "" else _seconds("start", start)
    end = None if end is None or end == "" else _seconds("end", end)
    if end is not None and end <= (start or 0):
        raise InputError(f"expected an end after the start, found {start or 0:g} s to {end:g} s")
    identity = "" if identity is None else str(identity).strip()
    labels = row.get("labels")
    labels = _words(labels) if isinstance(labels, str) else _labels(labels, labels)
    return recognise(place, layout, identity, start, end, labels)


def _is_path(text: str) -> bool:
    """Whether a file system can have this absolute path."""
    if len(text) <= _LONGEST_PART and text.isascii():
        return True
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return len(encoded) <= _LONGEST_PART or (
        len(encoded) < _LONGEST_PATH and max(map(len, encoded.split(b"/"))) <= _LONGEST_PART)


def _is_name(text: str) -> bool:
    """Whether a record can hold this name of a person, and a page can show it."""
    return len(text) <= _LONGEST_IDENTITY and not _CONTROL.search(text)


def _seconds(column: str, value: object) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{column}: expected seconds of at least 0, such as 12.5, found {shown(value)}")
    return seconds


@lru_cache(1 << 10)
def _words(text: str) -> tuple[str, ...] | None:
    """Return the attribute kinds of a cell of a CSV file."""
    return None if text == "" else _labels(re.findall(r"[^;\s]+", text), text)


def _labels(words: object, given: object) -> tuple[str, ...] | None:
    if words is None:
        return None
    if words == ["none"]:
        return ()
    if not isinstance(words, list) or not all(word in ATTRIBUTE_KINDS for word in words):
        raise InputError(f"labels: expected some of {', '.join(ATTRIBUTE_KINDS)}, or 'none', found "
                         f"{shown(given)}")
    return tuple(kind for kind in ATTRIBUTE_KINDS if kind in words)
