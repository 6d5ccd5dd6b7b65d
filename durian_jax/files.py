"""Output files: found writable before the work starts, and written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from durian_jax.errors import InputError


def writable_folder(path: str | Path) -> Path:
    """The folder, made if need be, in which a file can be created.

    Raises:
        InputError: it cannot be made or nothing can be written into it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into the folder {folder}: {error.strerror or error}; "
                         "name another output") from error
    return folder


def writable_file(path: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
    """The path of a file that can be written there.

    Args:
        suffixes: endings it may have, such as ".mp4"; any if empty.

    Raises:
        InputError: wrong ending, a folder stands there, or its folder cannot be written.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"output {path}: expected a name ending in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"output {path} is a folder; name a file in it")
    writable_folder(path.parent)
    return path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[str]:
    """A temporary file beside `path` that takes its name when the block ends well.

    Raises:
        InputError: the folder cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"{path}: expected a file name, found a folder; add a name")
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
    """Gives a temporary file, which is private, the permissions of any other new file."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically: readers see the old one or the new one."""
    with atomic_file(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: dict) -> None:
    """Writes JSON atomically; NaN becomes null, as JSON knows no NaN."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def _plain(value):
    """The value in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    return str(value) if isinstance(value, Path) else value
