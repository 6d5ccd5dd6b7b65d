"""Output files: check that they can be written before work starts, and write them atomically."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from durian_jax.errors import InputError


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
    except OSError as error:
        raise InputError(f"cannot write into the folder {folder}: {error.strerror or error}; "
                         "choose another output") from error
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
        raise InputError(f"output {path}: expected a name ending in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"output {path} is a folder; add a file name")
    writable_folder(path.parent)
    return path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[str]:
    """Yield a temporary file beside `path`; rename it to `path` if the block does not raise.

    Raises:
        InputError: the path is a folder, or its folder cannot be created or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"{path}: expected a file, found a folder; add a file name")
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}); choose another folder") from error
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
