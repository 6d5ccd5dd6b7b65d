"""durian.json of an export: sizes, and a hash of every file, checked before a model is built. Imports no jax."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from durian_jax.checkpoints.description import Description
from durian_jax.errors import InputError, cut, listed
from durian_jax.families import get_family
from durian_jax.fields import OneOf, check_fields, in_file, read_fields
from durian_jax.files import hidden_folder, make_readable, read_json, write_json
from durian_jax.progress import progress_bar

BUNDLE_FILE = "durian.json"

# Precision of the files.
DTYPES = ("fp32", "fp16", "bf16")

# Number of bytes from which a progress bar is shown.
_LARGE = 1 << 30


@dataclass(frozen=True)
class _Files:
    """What durian.json says of the files."""

    dtype: Annotated[str, OneOf(DTYPES)]
    files: Mapping[str, str]  # relative name -> SHA-256 in hexadecimal

    def __post_init__(self):
        check_fields(self)


def file_hashes(folder: Path) -> dict[str, str]:
    """Return relative name -> SHA-256 of every file in a folder except durian.json."""
    return hashes(folder, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                                 if path.is_file() and path.name != BUNDLE_FILE))


def hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """Return name -> SHA-256 in hexadecimal."""
    total, found = sum((folder / name).stat().st_size for name in names), {}
    with progress_bar(total=total, desc="checking", unit="B", unit_scale=True, disable=total < _LARGE) as bar:
        for name in names:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
            bar.update((folder / name).stat().st_size)
    return found


def write_bundle(folder: Path, description: Description, dtype: str) -> None:
    """Write durian.json: the description, the dtype of the files, and a hash of every file."""
    write_json(folder / BUNDLE_FILE, {**description.to_file(), "dtype": dtype, "files": file_hashes(folder)})


def find_bundle(folder: str | Path) -> Path:
    """Return the path of durian.json of an export.

    Raises:
        InputError: not an export.
    """
    folder = Path(folder)
    path = folder / BUNDLE_FILE
    if not os.path.isfile(path):
        found = "a JAX checkpoint; export it first: durian export --checkpoint" \
            if os.path.isfile(folder / "config.json") else "none; name the folder that durian export has written, not"
        raise InputError(f"expected an export with {BUNDLE_FILE}, found {found} {cut(str(folder))}")
    return path


def read_bundle(folder: str | Path) -> tuple[Description, str]:
    """Read the description and the dtype of an export, and check all its files (seconds for gigabytes).

    Raises:
        InputError: not an export, another format, or missing or changed files, each named.
    """
    folder, path = Path(folder), find_bundle(folder)
    values = read_json(path, "export the checkpoint again")
    own = [field.name for field in fields(_Files)]
    description = Description.from_file(path, values, ("format", *own))
    with in_file(path, "export the checkpoint again"):
        listing = read_fields(_Files, {name: values[name] for name in own})
    dtype, files = listing.dtype, listing.files
    get_family(description.config.family).load("convert").check_exportable(description.config)
    _check_listed(folder, files)
    missing = [name for name in files if not os.path.isfile(folder / name)]
    if missing:
        raise InputError(f"{folder}: {listed(missing)} missing; copy or export it again")
    changed = [name for name, found in hashes(folder, sorted(files)).items() if found != files[name]]
    if changed:
        raise InputError(f"{folder}: {listed(changed)} changed or damaged (another SHA-256 than {BUNDLE_FILE} "
                         "says); copy or export it again")
    return description, dtype


def _check_listed(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse names outside the folder, and weights or configs without a hash."""
    outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    present = {path.relative_to(folder).as_posix() for kind in ("*.safetensors", "*.json", "*.onnx")
               for path in folder.rglob(kind) if path.name != BUNDLE_FILE}
    unlisted = sorted(present - files.keys())
    if outside or unlisted:
        raise InputError(f"{folder / BUNDLE_FILE} does not fit the folder: {listed([*outside, *unlisted])} "
                         f"{'lead out of it' if outside else 'not listed'}; copy or export it again")


def replace_files(folder: Path, writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Replace files of an export: write all to temporary names, then rename them, durian.json last.

    Args:
        writers: name -> function that writes the file to a given temporary path.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    values = read_json(folder / BUNDLE_FILE)
    try:
        with hidden_folder(folder) as hidden:
            made = {name: hidden / str(i) for i, name in enumerate(writers)}
            for name, write in writers.items():
                write(made[name])
                make_readable(made[name])
            found = hashes(hidden, [path.name for path in made.values()])
            values["files"] |= {name: found[path.name] for name, path in made.items()}
            for name, path in made.items():
                os.replace(path, folder / name)
            write_json(folder / BUNDLE_FILE, values)
    except OSError as error:
        raise InputError(f"{folder} could not be written: {error}; is it read-only, or the disk full?") from error
