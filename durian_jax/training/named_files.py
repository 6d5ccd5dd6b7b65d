"""The files that a run names on the command line, looked up before JAX and the config are imported. Imports no jax."""

import os
from collections.abc import Mapping
from pathlib import Path

from durian_jax.checkpoints.weights import find_checkpoint
from durian_jax.data.encoded_samples import find_samples
from durian_jax.data.recorded_clips import find_dataset
from durian_jax.errors import InputError
from durian_jax.files import check_folder


def saved_steps(folder: Path) -> set[int]:
    """Steps of the complete checkpoints in a folder."""
    return {int(path.name) for path in folder.glob("*") if path.name.isdigit()}


def has_checkpoints(workdir: str | os.PathLike) -> bool:
    """Return whether a folder is the workdir of a run with a complete checkpoint.

    Raises:
        InputError: the run has none yet.
    """
    folder = Path(workdir) / "checkpoints"
    if not os.path.isdir(folder):
        return False
    if not saved_steps(folder):
        raise InputError(f"{workdir}: no complete checkpoint yet; let the run reach its first (checkpoint_every)")
    return True


def check_named_files(fields: Mapping[str, str], out: str | os.PathLike, resumable: bool = True) -> None:
    """Refuse files that do not exist, and an output that cannot be written. Everything else is checked later.

    Args:
        fields: dotted name of a config's field -> its text; fields that name no files are ignored.
        out: folder to write.
        resumable: `out` is a workdir: a run that resumes does not need what it started from.

    Raises:
        InputError: names the first file that is missing.
    """
    check_folder(out)
    resumes = resumable and saved_steps(Path(out) / "checkpoints")
    start = fields.get("init_from", "")
    if start and not resumes and not has_checkpoints(start):
        find_checkpoint(start)
    for name in fields.get("source.clips", "").split(","):
        if name and name != "synthetic":
            find_dataset(name)
    if fields.get("source.samples"):
        find_samples(fields["source.samples"])


def what_is_kept(workdir: str | os.PathLike) -> str:
    """Say what a stopped run leaves behind, and how to go on."""
    steps = saved_steps(Path(workdir) / "checkpoints")
    if not steps:
        return f"{workdir} has no checkpoint yet; repeat the command to start again"
    return f"{workdir} keeps the checkpoint of step {max(steps)}; repeat the command to resume from it"
