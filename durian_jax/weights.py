"""Exported weights: a folder with config.json and model.safetensors, for inference and as a start."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.models import DurianConfig
from durian_jax.models.parameters import FlatParams, init_params

SHIPPED = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be sampled from.

    Attributes:
        config: sizes.
        objective: schedule and prediction type.
        params: flat parameters, path -> array.
        path: folder that it was read from, if any.
    """

    config: DurianConfig
    objective: Objective
    params: FlatParams
    path: Path | None = None


def strict_update(params: dict, loaded: dict, origin: str) -> dict:
    """`loaded`, after checking that it has exactly the paths and shapes of `params`.

    Raises:
        InputError: with every missing, unexpected or mis-shaped tensor.
    """
    problems = [f"missing {path}" for path in sorted(set(params) - set(loaded))]
    problems += [f"unexpected {path}" for path in sorted(set(loaded) - set(params))]
    problems += [f"{path} has shape {tuple(loaded[path].shape)}, expected {tuple(params[path].shape)}"
                 for path in sorted(set(params) & set(loaded)) if loaded[path].shape != params[path].shape]
    if problems:
        raise InputError(f"{origin} does not fit the model ({len(problems)} tensors): " + "; ".join(problems))
    return {path: loaded[path] for path in params}


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, dtype: str = "float16") -> Path:
    """Write a checkpoint; each file appears whole or not at all.

    Args:
        dtype: "float16" (half the size; exact to 3 digits) or "float32".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model": checkpoint.config.to_dict(), "objective": vars(checkpoint.objective)}
    for name, write in {
        "model.safetensors": lambda path: save_file(
            {k: np.ascontiguousarray(v, dtype) for k, v in checkpoint.params.items()}, path),
        "config.json": lambda path: Path(path).write_text(json.dumps(config, indent=2) + "\n"),
    }.items():
        temporary = folder / f".{name}.tmp"
        write(str(temporary))
        os.replace(temporary, folder / name)
    return folder


def load_checkpoint(name: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        name: a folder, or the name of a checkpoint that ships with the package ("tiny").

    Raises:
        InputError: no such checkpoint, damaged files, or tensors that do not fit its config.
    """
    folder = Path(name) if Path(name).is_dir() else SHIPPED / str(name)
    files = [folder / "config.json", folder / "model.safetensors"]
    if not all(file.is_file() for file in files):
        shipped = sorted(p.name for p in SHIPPED.iterdir()) if SHIPPED.is_dir() else []
        raise InputError(f"no checkpoint {str(name)!r}: expected a folder with config.json and model.safetensors, "
                         f"or one of the shipped ones ({', '.join(shipped)})")
    try:
        values = json.loads(files[0].read_text())
        config = DurianConfig.from_dict(values["model"])
        objective = Objective(**values["objective"])
        params = {path: x.astype(np.float32) for path, x in load_file(files[1]).items()}
    except (json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"checkpoint {folder} is damaged: {error}; copy or export it again") from error
    expected = jax.eval_shape(lambda: init_params(config, 0))
    return Checkpoint(config, objective, strict_update(expected, params, str(folder)), folder)
