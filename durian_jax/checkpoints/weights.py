"""Exported weights, for inference and as a start.

A folder with config.json and model.safetensors (or shards of it); with identity.onnx where the model attends to an
identity embedding.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors import SafetensorError

from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder, open_identity_encoder
from durian_jax.files import writable_folder, write_json
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.parameters import FlatParams, param_shapes
from durian_jax.tensor_files import TensorFiles, check_paths, write_tensors

SHIPPED = Path(__file__).parent

_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be sampled from.

    Attributes:
        config: sizes.
        objective: schedule and prediction type.
        params: flat parameters, path -> array.
        path: folder that it was read from, if any.
        identity_encoder: of portraits' faces, where the config has identity_dim.
    """

    config: DurianConfig
    objective: Objective
    params: FlatParams
    path: Path | None = None
    identity_encoder: IdentityEncoder | None = None


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, dtype: str = "float16") -> Path:
    """Write a checkpoint that is in memory, see `write_checkpoint`."""
    tensors = ((path, np.asarray(x)) for path, x in sorted(checkpoint.params.items()))
    return write_checkpoint(folder, checkpoint.config, checkpoint.objective, tensors, dtype)


def write_checkpoint(folder: str | Path, config: DurianConfig, objective: Objective,
                     tensors: Iterable[tuple[str, np.ndarray]], dtype: str) -> Path:
    """Write a checkpoint; each file appears whole or not at all.

    Args:
        tensors: path and values of every parameter.
        dtype: of the file: "float16" (half the size; exact to 3 digits), "bfloat16" or "float32".

    Raises:
        InputError: the folder cannot be written, or is too full.
    """
    folder = writable_folder(folder)
    try:
        write_tensors(folder, ((path, x.astype(_DTYPES[dtype])) for path, x in tensors))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: the weights could not be written: {error}; is the disk full?") from error
    write_json(folder / "config.json", {"model": config.to_dict(), "objective": vars(objective)})
    return folder


def read_config(name: str | Path) -> tuple[DurianConfig, Objective, Path]:
    """Sizes, objective and folder of a checkpoint, without reading its tensors.

    Raises:
        InputError: see `load_checkpoint`.
    """
    folder = Path(name) if Path(name).is_dir() else SHIPPED / str(name)
    config_file = folder / "config.json"
    if not config_file.is_file() or not any(folder.glob("model*.safetensors")):
        shipped = sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))
        hint = f"; did you mean {folder}/export?" if (folder / "export").is_dir() else ""
        raise InputError(f"no checkpoint {str(name)!r}: expected a folder with config.json and model.safetensors, "
                         f"or one of the shipped ones ({', '.join(shipped)}){hint}")
    try:
        values = json.loads(config_file.read_text())
        return DurianConfig.from_dict(values["model"]), Objective(**values["objective"]), folder
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{config_file} is damaged: {error}; copy or export the checkpoint again") from error


def load_checkpoint(name: str | Path, dtype: str | None = None, prefixes: tuple[str, ...] = ("",),
                    place: Callable[[str, np.ndarray], jax.Array] | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        name: a folder, or the name of a checkpoint that ships with the package ("tiny").
        dtype: of the parameters: "float32", "bfloat16", "float16"; "stored": as they are in the file; None: that of
            the model's activations, which is all that inference needs.
        prefixes: beginnings of the paths to read; the others are only checked.
        place: path and value to an array on the devices; None: the first device.

    Raises:
        InputError: no such checkpoint, damaged files, or tensors that do not fit its config.
    """
    config, objective, folder = read_config(name)
    identity_encoder = open_identity_encoder(folder / IDENTITY_FILE, config.identity_dim)
    files = TensorFiles(folder)
    check_paths({path: x.shape for path, x in param_shapes(config).items()}, files.shapes, str(folder))
    cast = None if dtype == "stored" else _DTYPES[dtype or config.dtype]
    try:
        # On the device one by one, so that no second copy of all of them is ever held.
        params = {}
        for path in files:
            if path.startswith(prefixes):
                x = files[path] if cast is None else files[path].astype(cast)
                params[path] = jnp.asarray(x) if place is None else place(path, x)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: the weights are damaged: {error}; copy or export them again") from error
    return Checkpoint(config, objective, params, folder, identity_encoder)
