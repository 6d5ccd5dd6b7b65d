"""Files that a user gives."""

from pathlib import Path

from durian_jax.errors import InputError


def existing_file(path: str | Path, what: str) -> Path:
    """The path of a file that can be read and is not empty; `what` says what it should be, for the error.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    path = Path(path)
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
