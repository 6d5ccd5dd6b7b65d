"""Exported weights: for inference, and as the start of a training run. Imports jax when it loads weights.

A checkpoint is a folder with config.json and model.safetensors (or shards of it), and with identity.onnx if the model
attends to an identity embedding. config.json holds `model`, `objective` and `sampling`; version 0.1 wrote no
`sampling` and no family.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
from safetensors import SafetensorError

from durian_jax.checkpoints import SHIPPED
from durian_jax.checkpoints.description import Description
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError, cut, shown
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder, open_identity_encoder
from durian_jax.files import read_json, writable_folder, write_json
from durian_jax.models.family import ModelConfig
from durian_jax.tensor_files import TensorFiles, check_paths, write_tensors

if TYPE_CHECKING:
    import jax

    from durian_jax.models.parameters import AnyParams


_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Checkpoint:
    """A model that can be sampled from.

    Attributes:
        config, objective, sampling: see `Description`.
        params: flat parameters, path -> array.
        path: folder that it was loaded from, if any.
        identity_encoder: embeds portraits' faces, if the config has identity_dim.
    """

    config: ModelConfig
    objective: Objective
    params: "AnyParams"
    path: Path | None = None
    identity_encoder: IdentityEncoder | None = None
    sampling: Sampling = Sampling()

    @property
    def description(self) -> Description:
        """What config.json says of it."""
        return Description(self.config, self.objective, self.sampling)


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, dtype: str = "float16") -> Path:
    """Write a checkpoint that is in memory, see `write_checkpoint`."""
    tensors = ((path, np.asarray(x)) for path, x in sorted(checkpoint.params.items()))
    return write_checkpoint(folder, checkpoint.description, tensors, dtype)


def write_checkpoint(folder: str | Path, description: Description, tensors: Iterable[tuple[str, np.ndarray]],
                     dtype: str) -> Path:
    """Write a checkpoint. Each file is written atomically.

    Args:
        tensors: path and values of every parameter.
        dtype: of the file: "float16" (half the size; exact to 3 digits), "bfloat16" or "float32".

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    folder = writable_folder(folder)
    try:
        write_tensors(folder, ((path, x.astype(_DTYPES[dtype])) for path, x in tensors))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: the weights could not be written: {error}; is the disk full?") from error
    write_json(folder / "config.json", description.to_file())
    return folder


def find_checkpoint(name: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        name: a folder, or the name of a checkpoint that ships with the package ("tiny", "svdp-tiny").

    Raises:
        InputError: no such checkpoint; lists the shipped ones.
    """
    folder = Path(name) if os.path.isdir(name) else SHIPPED / str(name)
    if not os.path.isfile(folder / "config.json") or not any(folder.glob("model*.safetensors")):
        shipped = sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))
        hint = f"; did you mean {folder}/export?" if os.path.isdir(folder / "export") else ""
        raise InputError(f"no checkpoint {shown(str(name), 200)}: expected a folder with config.json and "
                         f"model.safetensors, or one of the shipped ones ({', '.join(shipped)}){hint}")
    return folder


def read_description(name: str | Path) -> Description:
    """Sizes, objective and default sampling of a checkpoint, without reading its tensors.

    Raises:
        InputError: no such checkpoint, or a damaged config.json.
    """
    path = find_checkpoint(name) / "config.json"
    return Description.from_file(path, read_json(path, "copy or export the checkpoint again"))


def open_weights(folder: Path, config: ModelConfig) -> TensorFiles:
    """Open the weights of a checkpoint; no value is read yet.

    Raises:
        InputError: damaged files, or tensors that do not fit its config.
    """
    from durian_jax.models.parameters import param_shapes  # imports JAX

    files = TensorFiles(folder)
    files.check_types(files)
    if config.least_parameters > len(files):  # building a large model takes minutes
        raise InputError(f"{folder} does not fit the model: config.json describes one of more than "
                         f"{config.least_parameters} tensors, the weights hold {len(files)}; copy or export both again")
    check_paths({path: x.shape for path, x in param_shapes(config).items()}, files.shapes, str(folder))
    return files


def load_checkpoint(name: str | Path, dtype: str | None = None, prefixes: tuple[str, ...] = ("",), only: str = "",
                    place: "Callable[[str, np.ndarray], jax.Array] | None" = None) -> Checkpoint:
    """Load a checkpoint.

    Args:
        name: a folder, or the name of a checkpoint that ships with the package ("tiny", "svdp-tiny").
        dtype: of the parameters: "float32", "bfloat16", "float16"; "stored": as in the file; None: that of the
            model's activations, which is enough for inference.
        prefixes: load the parameters whose paths begin with one of these; the others are only checked.
        only: pattern that the beginning of these paths must match, too; "": any.
        place: path and value -> array on the devices; None: on the first device.

    Raises:
        InputError: no such checkpoint, damaged files, tensors that do not fit its config, or tensors that hold NaN,
            infinity or only zeros (`zero_at_start`).
    """
    import jax  # here, so that a misspelt checkpoint is refused before JAX is imported

    from durian_jax.models.parameters import zero_at_start

    folder = find_checkpoint(name)
    found = read_description(name)
    identity_encoder = open_identity_encoder(folder / IDENTITY_FILE, found.config.identity_dim)
    files, zeros = open_weights(folder, found.config), zero_at_start(found.config)
    cast = None if dtype == "stored" else _DTYPES[dtype or found.config.dtype]
    try:
        # Move them to the device one by one: the host never holds a second copy of all of them.
        params = {}
        for path in files:
            if path.startswith(prefixes) and re.match(only, path):
                x = files.checked(path, path in zeros)
                x = x if cast is None else x.astype(cast)
                # jnp.asarray would compile a program for every shape.
                params[path] = jax.device_put(x) if place is None else place(path, x)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: the weights are damaged: {cut(str(error))}; copy or export them again") from error
    return Checkpoint(found.config, found.objective, params, folder, identity_encoder, found.sampling)
