"""Initial parameters of a run: fresh, or from a run or checkpoint."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from durian_jax.checkpoints.weights import find_checkpoint, load_checkpoint, read_description
from durian_jax.errors import InputError
from durian_jax.models.family import ModelConfig
from durian_jax.models.parameters import FlatParams, init_params, param_shapes
from durian_jax.tensor_files import TensorFiles, check_paths
from durian_jax.training.config import RunConfig
from durian_jax.training.differences import describe, differences
from durian_jax.training.named_files import check_codec, check_family, has_checkpoints
from durian_jax.training.run_checkpoints import load_params, stored_shapes
from durian_jax.training.sharding import Layout


def check_start(run: RunConfig) -> None:
    """Refuse a start that cannot be used, before anything is built.

    Raises:
        InputError: no such run or checkpoint, unreadable files, one of another family without `init_only`, tensors that
            do not fit the model, or a fresh autoencoder in a stage that does not train it.
    """
    check_codec(run)
    check_family(run)
    if not run.init_from:
        return
    folder = Path(run.init_from)
    # Looking at the shapes also refuses a file that was cut off.
    _check_fit(run, stored_shapes(folder) if has_checkpoints(folder) else
               TensorFiles(find_checkpoint(run.init_from)).shapes)


def _check_fit(run: RunConfig, found: Mapping[str, tuple[int, ...]], prefixes: tuple[str, ...] = ("",)
               ) -> frozenset[str]:
    """Return the parameters that start fresh, because the start does not hold them.

    Args:
        found: path -> shape of the start's parameters.
        prefixes: only parameters whose paths begin with one of these.

    Raises:
        InputError: tensors that do not fit the model.
    """
    if run.init_only:
        found = {path: shape for path, shape in found.items() if re.match(run.init_only, path)}
        if not found:
            raise InputError(f"init_only={run.init_only}: {run.init_from} has no parameter of this pattern")
    fresh = "|".join(pattern for pattern in (run.init_fresh, run.init_only and f"^(?!{run.init_only})") if pattern)
    wanted = lambda shapes: {path: tuple(shape) for path, shape in shapes.items() if path.startswith(prefixes)}
    expected = wanted({path: x.shape for path, x in param_shapes(run.model).items()})
    try:
        check_paths(expected, wanted(found), run.init_from, fresh)
    except InputError as error:
        fields = _other_fields(run.init_from, run.model)
        if not fields:
            raise
        raise InputError(f"{run.init_from} is of another model than the config: {fields}. Import or train one of this "
                         "config, or change the config") from error
    return frozenset(set(expected) - set(found))


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
    missing = _check_fit(run, {path: x.shape for path, x in loaded.items()}, prefixes)
    started = init_params(run.model, run.seed, missing, place) if missing else {}
    return {**{path: x for path, x in loaded.items() if path.startswith(prefixes)}, **started}


def _other_fields(start: str, model: ModelConfig) -> str:
    """Describe the fields in which the model of a checkpoint differs; "" for the workdir of a run."""
    if os.path.isdir(Path(start) / "checkpoints"):
        return ""
    return describe(differences(read_description(start).config.to_dict(), model.to_dict()),
                    "{name} is {before}, the config has {now}")
