"""Folders of diffusers and transformers, local or fetched: config.json beside safetensors."""

import json
from pathlib import Path
from typing import Any

from durian_jax.errors import InputError


def find_folder(name: str, inside: str = "") -> Path:
    """The local folder of a network.

    Args:
        name: a folder; or a hub id, "owner/repository" or "owner/repository:folder/in/it", whose configs and
            safetensors are then fetched.
        inside: folder in which to look within it ("unet"), if it has such.

    Raises:
        InputError: neither a folder with config.json nor a repository that can be fetched.
    """
    repository, _, subfolder = name.partition(":")
    folder = Path(name)
    if not folder.is_dir():
        if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
            raise InputError(f"{name}: expected a folder, or a hub id such as owner/repository or "
                             f"owner/repository:folder; found neither")
        folder = _fetch(repository, subfolder or inside) / subfolder
    if inside and (folder / inside).is_dir():
        folder /= inside
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: expected config.json in it, found none; name the folder of the "
                         f"{inside or 'network'} itself")
    return folder


def _fetch(repository: str, subfolder: str) -> Path:
    """Download configs and safetensors of a repository, or of a folder in it; the library keeps what it has."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    prefix = f"{subfolder}/" if subfolder else ""
    try:
        return Path(snapshot_download(repository, allow_patterns=[f"{prefix}config.json", f"{prefix}*.safetensors",
                                                                  f"{prefix}*.safetensors.index.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{repository}: neither a local folder nor a repository that can be fetched: "
                         f"{error}") from error


def read_json(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        InputError: it is damaged.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}; fetch it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object of fields, found {type(values).__name__}; fetch it again")
    return values
