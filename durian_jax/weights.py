"""Exported weights: a folder with config.json and model.safetensors, for inference and as a start."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.files import atomic_file, write_json
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


def strict_update(params: dict, loaded: dict, origin: str, fresh: str = "") -> dict:
    """`loaded`, after checking that it has exactly the paths and shapes of `params`.

    Args:
        fresh: pattern of paths that may be missing and then keep their value in `params`; "": none.

    Raises:
        InputError: with every missing, unexpected or mis-shaped tensor.
    """
    if fresh:
        excused = {path: x for path, x in params.items() if path not in loaded and re.search(fresh, path)}
        loaded = {**loaded, **excused}
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
    with atomic_file(folder / "model.safetensors") as temporary:
        save_file({path: np.ascontiguousarray(x, dtype) for path, x in checkpoint.params.items()}, temporary)
    write_json(folder / "config.json", config)
    return folder


def read_config(name: str | Path) -> tuple[DurianConfig, Objective, Path]:
    """Sizes, objective and folder of a checkpoint, without reading its tensors.

    Raises:
        InputError: see `load_checkpoint`.
    """
    folder = Path(name) if Path(name).is_dir() else SHIPPED / str(name)
    config_file, tensors = folder / "config.json", folder / "model.safetensors"
    if not (config_file.is_file() and tensors.is_file()):
        shipped = sorted(p.name for p in SHIPPED.iterdir()) if SHIPPED.is_dir() else []
        hint = f"; did you mean {folder}/export?" if (folder / "export").is_dir() else ""
        raise InputError(f"no checkpoint {str(name)!r}: expected a folder with config.json and model.safetensors, "
                         f"or one of the shipped ones ({', '.join(shipped)}){hint}")
    try:
        values = json.loads(config_file.read_text())
        return DurianConfig.from_dict(values["model"]), Objective(**values["objective"]), folder
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{config_file} is damaged: {error}; copy or export the checkpoint again") from error


def load_checkpoint(name: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        name: a folder, or the name of a checkpoint that ships with the package ("tiny").

    Raises:
        InputError: no such checkpoint, damaged files, or tensors that do not fit its config.
    """
    config, objective, folder = read_config(name)
    try:
        params = {path: x.astype(np.float32) for path, x in load_file(folder / "model.safetensors").items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / 'model.safetensors'} is damaged: {error}; copy or export it again") from error
    expected = jax.eval_shape(lambda: init_params(config, 0))
    return Checkpoint(config, objective, strict_update(expected, params, str(folder)), folder)
