"""Initial parameters of a run: fresh, or from a run or checkpoint."""

import os
import re
from dataclasses import replace
from pathlib import Path

from flax.traverse_util import flatten_dict

from durian_jax.checkpoints.weights import find_checkpoint, load_checkpoint, read_description
from durian_jax.errors import InputError
from durian_jax.models.family import ModelConfig
from durian_jax.models.parameters import FlatParams, init_params, param_shapes
from durian_jax.tensor_files import TensorFiles, check_paths
from durian_jax.training.config import RunConfig
from durian_jax.training.run_checkpoints import load_params
from durian_jax.training.sharding import Layout


def check_start(run: RunConfig) -> None:
    """Refuse a checkpoint to start from, before anything is built. The workdir of a run is checked when it is loaded.

    Raises:
        InputError: no such checkpoint, unreadable files, or one of another family without `init_only`.
    """
    if not run.init_from or os.path.isdir(Path(run.init_from) / "checkpoints"):
        return
    found = read_description(run.init_from).config.family
    TensorFiles(find_checkpoint(run.init_from))  # reads the headers, so that a file that was cut off is refused
    if found != run.family and not run.init_only:
        raise InputError(f"init_from={run.init_from}: expected a model of the family {run.family}, found one of "
                         f"{found}; name another, or take a part of it, such as init_only=codec/")


def initial_params(run: RunConfig, prefixes: tuple[str, ...] = ("",), layout: Layout | None = None) -> FlatParams:
    """Return fresh parameters, or those of `run.init_from` if it names a run or checkpoint.

    A checkpoint must hold every parameter of the model with its shape, except those that `run.init_fresh` matches:
    these start fresh. (A checkpoint that was written before a stage holds that stage's fresh parameters.) With
    `run.init_only` it needs to hold those that this pattern matches, and all others start fresh.

    Args:
        prefixes: only parameters whose paths begin with one of these.
        layout: shards them over its devices; None: on the first device.
    """
    # Replicate frozen weights only after casting them, so here everything is sharded.
    layout = layout and replace(layout, whole=frozenset())
    place = None if layout is None else layout.param
    if not run.init_from:
        return init_params(run.model, run.seed, place=place)
    folder = Path(run.init_from)
    if os.path.isdir(folder / "checkpoints"):
        loaded = load_params(folder, layout)
    else:
        loaded = load_checkpoint(run.init_from, "stored", prefixes, run.init_only,
                                 layout and layout.place).params
    if run.init_only:
        loaded = {path: x for path, x in loaded.items() if re.match(run.init_only, path)}
        if not loaded:
            raise InputError(f"init_only={run.init_only}: {run.init_from} has no parameter of this pattern")
    fresh = "|".join(pattern for pattern in (run.init_fresh, run.init_only and f"^(?!{run.init_only})") if pattern)
    wanted = lambda shapes: {path: x.shape for path, x in shapes.items() if path.startswith(prefixes)}
    expected, loaded_shapes = wanted(param_shapes(run.model)), wanted(loaded)
    try:
        check_paths(expected, loaded_shapes, run.init_from, fresh)
    except InputError as error:
        fields = _other_fields(folder, run.model)
        if not fields:
            raise
        raise InputError(f"{run.init_from} is of another model than the config: {'; '.join(fields)}. Import or "
                         "train one of this config, or change the config") from error
    missing = frozenset(set(expected) - set(loaded))
    started = init_params(run.model, run.seed, missing, place) if missing else {}
    return {**{path: loaded[path] for path in loaded_shapes}, **started}


def _other_fields(folder: Path, model: ModelConfig) -> list[str]:
    """Describe the fields in which a checkpoint's model differs; empty if the folder is no checkpoint."""
    if not (folder / "config.json").is_file() or (folder / "checkpoints").is_dir():
        return []
    found, wanted = (flatten_dict(x.to_dict(), sep=".") for x in (read_description(folder).config, model))
    names = sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
    return [f"{name} is {found.get(name)}, the config has {wanted.get(name)}" for name in names]
