"""Folders of diffusers and transformers, local or from the hub: config.json and safetensors."""

import os
from pathlib import Path
from typing import Any

from durian_jax import files
from durian_jax.errors import InputError, cut
from durian_jax.tensor_files import WEIGHT_NAMES


def check_name(name: str) -> None:
    """Refuse a name that is neither an existing folder nor a hub id.

    Raises:
        InputError: says what is expected.
    """
    repository = name.partition(":")[0]
    if not os.path.isdir(name) and (repository.count("/") != 1 or repository.startswith((".", "/", "~"))):
        raise InputError(f"{cut(name)}: expected a folder, or a hub id such as owner/repository or "
                         f"owner/repository:folder, found neither; check the name")


def find_folder(name: str, inside: str = "") -> Path:
    """Return the local folder of a network; download it if necessary.

    Args:
        name: a folder, or a hub id: "owner/repository" or "owner/repository:folder/in/it".
        inside: name of a subfolder to prefer if it exists, for example "unet".

    Raises:
        InputError: neither a folder with config.json nor a repository that can be downloaded.
    """
    check_name(name)
    repository, _, subfolder = name.partition(":")
    folder = Path(name)
    if not os.path.isdir(folder):
        # A pipeline's repository has a folder for the network; another repository is the network itself.
        for place in (subfolder,) if subfolder or not inside else (inside, ""):
            folder = _fetch(repository, place)
            if (folder / "config.json").is_file():
                return folder
    elif inside and os.path.isdir(folder / inside):
        folder /= inside
    if not os.path.isfile(folder / "config.json"):
        raise InputError(f"{folder}: expected config.json in it, found none; name the folder of the "
                         f"{inside or 'network'} itself")
    return folder


def has_folder(name: str, inside: str) -> bool:
    """Whether a pipeline, which is a local folder or a hub id, has a folder `inside` with a network.

    Raises:
        InputError: a hub id that cannot be reached.
    """
    if os.path.isdir(name) or name.partition(":")[0].count("/") != 1 or name.startswith((".", "/", "~")):
        return os.path.isfile(Path(name) / inside / "config.json")
    return (_fetch(name.partition(":")[0], inside, weights=False) / "config.json").is_file()


def _fetch(repository: str, place: str, weights: bool = True) -> Path:
    """Download config and safetensors of a repository's folder; huggingface_hub caches the files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    prefix = f"{place}/" if place else ""
    wanted = [f"{prefix}config.json"]
    # Full names, because "*.safetensors" would also match files of other precisions.
    for stem in WEIGHT_NAMES if weights else ():
        wanted += [f"{prefix}{stem}.safetensors", f"{prefix}{stem}.safetensors.index.json",
                   f"{prefix}{stem}-?????-of-?????.safetensors"]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted)) / place
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = cut(str(error).strip().splitlines()[0])
        raise InputError(f"{cut(repository)}: neither a local folder nor a repository that can be downloaded: "
                         f"{reason}; name a folder, or connect to the internet") from error


def read_json(folder: Path) -> dict[str, Any]:
    """Read config.json of a folder.

    Raises:
        InputError: the file is damaged.
    """
    return files.read_json(folder / "config.json", "download it again")
