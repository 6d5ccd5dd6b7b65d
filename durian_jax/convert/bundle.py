"""durian.json of an export: sizes, and a hash of every file, which are checked before a model is built."""

import hashlib
import json
from pathlib import Path

from tqdm import tqdm

from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.files import write_json
from durian_jax.models.config import DurianConfig

BUNDLE_FILE = "durian.json"
FORMAT = 1

# Long enough to wait for: then a bar is shown.
_LARGE = 1 << 30


def file_hashes(folder: Path) -> dict[str, str]:
    """Name relative to the folder -> SHA-256 of every file in it but durian.json."""
    return hashes(folder, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                                 if path.is_file() and path.name != BUNDLE_FILE))


def hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """Name -> SHA-256 in hexadecimal."""
    total, found = sum((folder / name).stat().st_size for name in names), {}
    with tqdm(total=total, desc="checking", unit="B", unit_scale=True, disable=total < _LARGE) as bar:
        for name in names:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
            bar.update((folder / name).stat().st_size)
    return found


def check_exportable(config: DurianConfig) -> None:
    """Refuse models that only JAX runs.

    Raises:
        InputError: names the field.
    """
    if config.reference_mode != "dual":
        raise InputError(f"reference_mode={config.reference_mode!r} is an ablation that only JAX runs; expected 'dual'")
    if config.portrait_capacity != 1 or config.attribute_capacity != 1:
        raise InputError("a model that drops reference tokens (portrait_capacity or attribute_capacity below 1) runs "
                         "in JAX only; set both to 1 in its config.json to export it without that")


def read_bundle(folder: str | Path, check_files: bool = True) -> tuple[DurianConfig, Objective, str]:
    """Sizes, objective and dtype of an export.

    Args:
        check_files: also whether all files are there and whole, which takes seconds for gigabytes.

    Raises:
        InputError: not an export, one of another format, or files that are missing or changed, each named.
    """
    folder = Path(folder)
    path = folder / BUNDLE_FILE
    if not path.is_file():
        found = "a JAX checkpoint; export it first: durian export --checkpoint" \
            if (folder / "config.json").is_file() else "none; name the folder that durian export has written, not"
        raise InputError(f"expected an export with {BUNDLE_FILE}, found {found} {folder}")
    try:
        values = json.loads(path.read_text())
        if values["format"] != FORMAT:
            raise InputError(f"{path}: expected format {FORMAT}, found {values['format']}; use the version of this "
                             f"package that wrote it ({values.get('version')}), or export the checkpoint again")
        config = DurianConfig.from_dict(values["model"])
        objective, dtype, files = Objective(**values["objective"]), values["dtype"], dict(values["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}; export the checkpoint again") from error
    check_exportable(config)
    if not check_files:
        return config, objective, dtype
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {', '.join(missing)} missing; copy or export it again")
    changed = [name for name, found in hashes(folder, sorted(files)).items() if found != files[name]]
    if changed:
        raise InputError(f"{folder}: {', '.join(changed)} changed or damaged (another SHA-256 than {BUNDLE_FILE} "
                         "says); copy or export it again")
    return config, objective, dtype


def update_bundle(folder: Path, names: list[str]) -> None:
    """Take the hashes of files that were written again."""
    path = folder / BUNDLE_FILE
    values = json.loads(path.read_text())
    write_json(path, {**values, "files": {**values["files"], **hashes(folder, names)}})
