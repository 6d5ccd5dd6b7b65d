"""Output files: check that they can be written before work starts, and write them atomically. Reading of JSON."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from durian_jax.errors import InputError, cut, shown

# The index of the largest published checkpoints has 0.1 MB, our deepest file 6 levels.
_LARGEST_JSON, _DEEPEST_JSON = 64 << 20, 50
# File systems take 255 bytes, and 4096 of a path. Temporary files have a few more than the name, `FILE_concat.mp4` too.
_LONGEST_NAME, _LONGEST_PATH = 200, 3800


def writable_folder(path: str | Path) -> Path:
    """Create the folder if needed, check that it can be written, and return it.

    Raises:
        InputError: the folder cannot be created or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write into the folder {cut(str(folder))}: {reason_of(error)}; choose another output"
                         ) from error
    return folder


def writable_file(path: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
    """Check that a file can be written at `path`, and return the path.

    Args:
        path: path of the output file; missing folders are created.
        suffixes: allowed endings, for example ".mp4"; empty: any ending.

    Raises:
        InputError: the ending is wrong, the path is a folder, or its folder cannot be written.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"output {cut(str(path))}: expected a name ending in {' or '.join(suffixes)}")
    if os.path.isdir(path):
        raise InputError(f"output {path} is a folder; add a file name")
    check_name(path)
    writable_folder(path.parent)
    return path


def check_name(path: Path) -> None:
    """Refuse an output whose name is too long, with the longer names beside it.

    Raises:
        InputError: says how long it may be.
    """
    name, whole = (len(os.fsencode(text)) for text in (path.name, os.path.abspath(path)))
    if name > _LONGEST_NAME or whole > _LONGEST_PATH:
        raise InputError(f"output {cut(str(path))}: expected a name of at most {_LONGEST_NAME} bytes and a path of at "
                         f"most {_LONGEST_PATH}, found {name} and {whole}; choose a shorter one")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[str]:
    """Yield a temporary file beside `path`; rename it to `path` if the block does not raise.

    Raises:
        InputError: the path is a folder, or its folder cannot be created or written.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: expected a file, found a folder; add a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
    except (OSError, ValueError) as error:
        raise InputError(f"{cut(str(path))}: cannot write there ({reason_of(error)}); choose another name") from error
    try:
        yield temporary
        make_readable(temporary)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def make_readable(path: str | Path) -> None:
    """Give a temporary file, which is private, the permissions of any other new file."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def read_json(path: str | Path, advice: str = "copy it again from its source", most: int = _LARGEST_JSON
              ) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: of the file.
        advice: what to do with a damaged file, for the error.
        most: largest number of bytes.

    Raises:
        InputError: the file cannot be read, is too large, is no JSON or no object, or is nested too deeply.
    """
    try:
        size = os.path.getsize(path)
        if size > most:
            raise InputError(f"{cut(str(path))}: expected at most {most >> 20} MB, found {size >> 20} MB; {advice}")
        return parse_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{cut(str(path))} is damaged: {reason_of(error)}; {advice}") from error


def reason_of(error: Exception) -> str:
    """Why a file could not be opened, for a message that names it already."""
    return cut(str(error.strerror or error if isinstance(error, OSError) else error))


def parse_json(text: str | bytes) -> dict[str, Any]:
    """Parse JSON that holds an object.

    Raises:
        ValueError: it is no JSON in UTF-8, no object, or nested too deeply.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError(f"expected an object of fields, found {shown(values)}")
    level: list[Any] = [values]
    for _ in range(_DEEPEST_JSON):
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)
                 if isinstance(inner, dict | list)]
        if not level:
            return values
    raise ValueError(f"it is nested more than {_DEEPEST_JSON} levels deep")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically: readers see the old or the new content."""
    with atomic_file(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: dict) -> None:
    """Write JSON atomically; NaN becomes null, because JSON has no NaN."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value):
    """Convert a value to JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    return str(value) if isinstance(value, Path) else value
