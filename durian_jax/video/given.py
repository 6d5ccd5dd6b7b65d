"""Files that a user gives."""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import av

from durian_jax.errors import InputError, cut
from durian_jax.files import reason_of

_ELSEWHERE = re.compile(r"(https?|ftp|s3|gs|rtmp|rtsp):/", re.IGNORECASE)
_FILE = re.compile(r"file:/+", re.IGNORECASE)


def local_path(path: str | Path) -> Path:
    """The path of "file:///a%20b" or of a plain name.

    Raises:
        InputError: an address of another machine.
    """
    text = str(path)  # `Path` makes one slash of two
    if _ELSEWHERE.match(text):
        raise InputError(f"{cut(text)}: expected a file on this machine, found an address; download it first, e.g. "
                         "with curl")
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
            raise InputError(f"{cut(str(path))}: no such file; expected {what}")
        if path.is_dir():
            raise InputError(f"{path}: expected {what}, found a folder")
        if not path.is_file():  # reading a pipe or a device may never end
            raise InputError(f"{path}: expected {what}, found a {_kind(path)}; save it as a file first")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: expected {what}, found an empty file")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{cut(str(path))}: cannot be read ({reason_of(error)}); expected {what}") from error
    return path


# PyAV 19 replaces undecodable letters of titles by itself and refuses the option.
_ANY_LETTERS = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


def open_media(path: str | Path) -> av.container.InputContainer:
    """Open a video or a sound file by FFmpeg, even if its titles are not valid UTF-8.

    Raises:
        av.error.FFmpegError, OSError: it is unreadable.
    """
    return av.open(str(path), **_ANY_LETTERS)


def _kind(path: Path) -> str:
    return "pipe" if path.is_fifo() else "socket" if path.is_socket() else "device"
