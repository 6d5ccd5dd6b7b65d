"""Output files: check that they can be written before work starts, and write them atomically. Read JSON."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from durian_jax.errors import DiskFull, InputError, cut, shown

# What the system and libraries say of a full disk: no space, a quota, a limit on the size of files.
_FULL_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = re.compile(r"No space left on device|Disk quota exceeded|File too large")

# The index of the largest published checkpoints has 0.1 MB, our deepest file 6 levels.
_LARGEST_JSON, _DEEPEST_JSON = 64 << 20, 50
# File systems take names of 255 bytes and paths of 4096. Names of temporary files and `FILE_concat.mp4` are longer.
_LONGEST_NAME, _LONGEST_PATH = 200, 3800
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

# Prefix of the folders of `hidden_folder`.
_HIDDEN = ".writing."

# Temporary files and folders of this process, for `remove_temporaries`.
_temporaries: set[Path] = set()


def check_folder(path: str | Path) -> Path:
    """Check that a folder can be written, or created, and return its path. Creates nothing.

    Raises:
        InputError: the folder cannot be created or written, or the path is an address of another machine.
    """
    if _ADDRESS.match(str(path)):
        raise InputError(f"{path}: expected a folder on this machine, found an address; mount it and name its folder")
    folder = Path(path)
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder.absolute())):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write into the folder {cut(str(folder))}: {reason_of(error)}; choose another output"
                         ) from error
    return folder


def _nearest(folder: Path) -> Path:
    """Return the folder, or the first of those above it that exists. A name that is too long is an OSError."""
    for place in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            place.stat()
            return place
    return folder


def writable_folder(path: str | Path) -> Path:
    """Create a folder if needed, check that it can be written, and return its path.

    Raises:
        InputError: the folder cannot be created or written.
    """
    folder = check_folder(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {cut(str(folder))}: {reason_of(error)}; choose another output"
                         ) from error
    return folder


def writable_file(path: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
    """Check that a file can be written at `path`, and return the path. Creates nothing; `atomic_file` makes folders.

    Args:
        path: path of the output file.
        suffixes: allowed endings, for example ".mp4"; empty: any ending.

    Raises:
        InputError: the ending is wrong, the path is a folder, or its folder cannot be created or written.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"output {cut(str(path))}: expected a name ending in {' or '.join(suffixes)}")
    if os.path.isdir(path):
        raise InputError(f"output {cut(str(path))} is a folder; add a file name")
    check_name(path)
    check_folder(path.parent)
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


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, comes from a full disk, whatever library raised it."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL_CODES) or _FULL_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_explained(path: str | Path) -> Iterator[None]:
    """Turn the error of a full disk, of any library, into one that says so.

    Args:
        path: what is being written, for the message.

    Raises:
        DiskFull: the block failed because a disk is full.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        place = Path(*(part for part in Path(path).parts if not part.startswith(_HIDDEN)))
        raise DiskFull(f"{cut(str(place))} could not be written: the disk is full, or a quota is used up. What was "
                       "there before is unchanged; free some space and repeat the command") from error


@contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """Create a folder and those above it. Remove the new ones again if the block raises and they are empty."""
    made = [place for place in (folder.absolute(), *folder.absolute().parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for place in made:  # the innermost first
                place.rmdir()
        raise


@contextmanager
def temporary(path: str | Path) -> Iterator[Path]:
    """Yield the path of a temporary file or folder. Remove it when the block ends or the program is stopped."""
    path = Path(path)
    _temporaries.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _temporaries.discard(path)


@contextmanager
def hidden_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder in an existing one, for files that move to their places after all are written."""
    with temporary(tempfile.mkdtemp(dir=folder, prefix=_HIDDEN)) as hidden:
        yield hidden


def remove_hidden_folders(folder: Path) -> None:
    """Remove the folders of `hidden_folder` that killed processes have left in a folder."""
    for left in folder.glob(f"{_HIDDEN}*"):
        shutil.rmtree(left, ignore_errors=True)


def remove_temporaries() -> None:
    """Remove the temporary files of this process, which is about to exit without unwinding."""
    for path in list(_temporaries):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[str]:
    """Yield a temporary file beside `path`; rename it to `path` if the block does not raise.

    Raises:
        InputError: the path is a folder, or its folder cannot be created or written.
        DiskFull: the disk is full.
    """
    path = Path(path)
    with full_disk_explained(path), ExitStack() as resources:
        try:
            if os.path.isdir(path):
                raise InputError(f"{cut(str(path))}: expected a file, found a folder; add a file name")
            resources.enter_context(created_folder(path.parent))
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
            os.close(handle)
        except (OSError, ValueError) as error:
            if is_disk_full(error):
                raise
            raise InputError(f"{cut(str(path))}: cannot write there ({reason_of(error)}); choose another "
                             "name") from error
        resources.enter_context(temporary(name))
        yield name
        make_readable(name)
        os.replace(name, path)


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; its files move into `folder` when the block ends without an error.

    So they appear together, and an error leaves all earlier ones. The folder is created if needed.

    Raises:
        InputError: the folder cannot be created or written.
        DiskFull: the disk is full.
    """
    folder = check_folder(folder)
    with full_disk_explained(folder), created_folder(folder), hidden_folder(folder) as hidden:
        yield hidden
        for path in sorted(path for path in hidden.rglob("*") if path.is_file()):
            place = folder / path.relative_to(hidden)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)


@contextmanager
def together() -> Iterator[Callable[[str | Path], Path]]:
    """Yield a function: path of an output -> temporary path to write instead.

    All outputs get their own paths when the block ends without an error. An error leaves all earlier ones.

    Raises:
        InputError, DiskFull: see `staged`.
    """
    with ExitStack() as stages:
        yield lambda path: stages.enter_context(staged(Path(path).parent)) / Path(path).name


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
    """Return why a file could not be opened, for a message that already names the file."""
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
    with atomic_file(path) as temporary_name:
        Path(temporary_name).write_text(text, encoding="utf-8")


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
