"""Files that a user gives."""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

from durian_jax.errors import InputError

_ELSEWHERE = re.compile(r"(https?|ftp|s3|gs|rtmp|rtsp):/", re.IGNORECASE)
_FILE = re.compile(r"file:/+", re.IGNORECASE)


def local_path(path: str | Path) -> Path:
    """The path of "file:///a%20b" or of a plain name.

    Raises:
        InputError: an address of another machine.
    """
    text = str(path)  # `Path` makes one slash of two
    if _ELSEWHERE.match(text):
        raise InputError(f"{text}: expected a file on this machine, found an address; download it first, e.g. with "
                         "curl")
    if _FILE.match(text):
        return Path("/" + unquote(urlparse(_FILE.sub("file:///", text)).path).lstrip("/"))
    return Path(path)


def existing_file(path: str | Path, what: str) -> Path:
    """The path of a file that can be read and is not empty; `what` says what it should be, for the error.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    path = local_path(path)
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file; expected {what}")
        if path.is_dir():
            raise InputError(f"{path}: expected {what}, found a folder")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: expected {what}, found an empty file")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {what}") from error
    return path
