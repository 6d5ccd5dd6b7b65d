"""What a run starts from, looked up before the machinery of training is imported. Imports no jax."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durian_jax.checkpoints.weights import find_checkpoint, read_description
from durian_jax.data.encoded_samples import find_samples
from durian_jax.data.recorded_clips import find_dataset
from durian_jax.errors import InputError
from durian_jax.files import check_folder

# A parameter of every autoencoder: a stage that does not train it needs a trained one.
_ENCODER = "codec/encoder/"


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


def has_started(workdir: str | os.PathLike) -> bool:
    """Return whether a folder is the workdir of a run that can be resumed."""
    return bool(saved_steps(Path(workdir) / "checkpoints"))


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
    resumes = resumable and has_started(out)
    start = fields.get("init_from", "")
    if start and not resumes and not has_checkpoints(start):
        find_checkpoint(start)
    for name in fields.get("source.clips", "").split(","):
        if name and name != "synthetic":
            find_dataset(name)
    if fields.get("source.samples"):
        find_samples(fields["source.samples"])


def check_codec(run: Any) -> None:
    """Refuse a fresh autoencoder that the stage does not train: its decoder makes infinite gradients.

    Args:
        run: a `training.config.RunConfig`.

    Raises:
        InputError: says where a trained one comes from.
    """
    loaded = run.init_from and (not run.init_only or re.match(run.init_only, _ENCODER))
    asked = run.init_fresh and re.search(run.init_fresh, _ENCODER)
    if not (loaded or asked or re.match(run.recipe.trains, _ENCODER)):
        raise InputError(f"stage {run.stage} needs a trained autoencoder (codec), found a fresh one, which makes the "
                         "loss infinite; name a run or a checkpoint in --config.init_from (stage codec trains one, "
                         "`durian import` brings one), or try a fresh one with --config.init_fresh=codec/")


def check_family(run: Any) -> None:
    """Refuse a checkpoint of another family, unless only a part of it is taken.

    Args:
        run: a `training.config.RunConfig`.

    Raises:
        InputError: names both families; or the checkpoint is missing or damaged.
    """
    if not run.init_from or has_checkpoints(run.init_from):
        return
    found = read_description(run.init_from).config.family
    if found != run.family and not run.init_only:
        raise InputError(f"init_from={run.init_from}: expected a model of the family {run.family}, found one of "
                         f"{found}; name another, or take a part of it, such as init_only=codec/")


def what_is_kept(workdir: str | os.PathLike) -> str:
    """Say what a stopped run leaves behind, and how to go on."""
    steps = saved_steps(Path(workdir) / "checkpoints")
    if not steps:
        return f"{workdir} has no checkpoint yet; repeat the command to start again"
    return f"{workdir} keeps the checkpoint of step {max(steps)}; repeat the command to resume from it"
