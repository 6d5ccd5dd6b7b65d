"""`durian export`: write a checkpoint as folders in diffusers' layout, which PyTorch runs without JAX."""

import shutil
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError

from durian_jax.checkpoints.weights import find_checkpoint, open_weights, read_description
from durian_jax.convert import sizes
from durian_jax.convert.bundle import BUNDLE_FILE, DTYPES, write_bundle
from durian_jax.convert.names import Tensor
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, open_identity_encoder
from durian_jax.families import get_family
from durian_jax.files import writable_folder, write_json
from durian_jax.models.parameters import zero_at_start
from durian_jax.progress import progress_bar
from durian_jax.tensor_files import write_tensors

# Largest file in bytes; larger networks are written in shards, as diffusers does.
SHARD_BYTES = 5 << 30

NUMPY_TYPES = dict(zip(DTYPES, (np.float32, np.float16, ml_dtypes.bfloat16), strict=True))


def export_checkpoint(checkpoint: str | Path, out: str | Path, dtype: str = "fp16", overwrite: bool = False,
                      shard_bytes: int = SHARD_BYTES) -> Path:
    """Write a checkpoint for PyTorch.

    Args:
        checkpoint: name of a shipped checkpoint, or a folder; a training run's export holds the averaged weights (EMA).
        out: folder to create, atomically.
        dtype: one of `DTYPES`.
        overwrite: replace an existing export.
        shard_bytes: size of the largest file.

    Returns:
        The folder. It holds a folder for each network (the family's `export_parts`), scheduler, and durian.json with
        sizes and the SHA-256 of every file.

    Raises:
        InputError: a missing or damaged checkpoint, a model that only JAX runs, values that `dtype` cannot represent,
            a folder that exists already or holds other files, or a full disk.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    out = Path(out).resolve()
    folder, found = find_checkpoint(checkpoint), read_description(checkpoint)
    config, family = found.config, get_family(found.config.family).load("convert")
    family.check_exportable(config)
    _check_replaceable(out, folder, overwrite)
    files, zeros = open_weights(folder, config), zero_at_start(config)
    open_identity_encoder(folder / IDENTITY_FILE, config.identity_dim)
    writable_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made = Path(temporary) / "made"
        with progress_bar(total=len(files), desc="exporting", unit="tensor") as bar:
            def read(tensor: Tensor) -> np.ndarray:
                bar.update()
                with np.errstate(over="ignore"):  # the next check refuses overflow
                    x = tensor.to_theirs(files.checked(tensor.path, tensor.path in zeros)).astype(NUMPY_TYPES[dtype])
                if not np.isfinite(x).all():
                    raise InputError(f"{folder}: {tensor.path} has values that are too large for {dtype}; choose "
                                     "another dtype")
                return x

            try:
                parts = family.export_parts(config, files.shapes, read, NUMPY_TYPES[dtype])
                for part, (values, tensors, stem) in parts.items():
                    (made / part).mkdir(parents=True)
                    write_json(made / part / "config.json", values)
                    write_tensors(made / part, tensors, shard_bytes, stem, {"format": "pt"})
                write_json(made / "scheduler" / "scheduler_config.json", sizes.scheduler_json(found.objective))
                if config.identity_dim is not None:
                    shutil.copyfile(folder / IDENTITY_FILE, made / IDENTITY_FILE)
                write_bundle(made, found, dtype)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{out} could not be written: {error}; is the disk full, or the checkpoint "
                                 "damaged?") from error
        _put_in_place(made, out, Path(temporary) / "old")
    return out


def _check_replaceable(out: Path, checkpoint: Path, overwrite: bool) -> None:
    """Refuse to replace anything but an export, and an export without `overwrite`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder to create")
    if out.is_mount() or out == Path.cwd():
        raise InputError(f"{out} is a mounted volume or the working folder and cannot be replaced; name a folder in "
                         "it")
    if checkpoint.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds the checkpoint itself ({checkpoint}); name another folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / BUNDLE_FILE).is_file():
            raise InputError(f"{out} holds other files than an export; name another folder")
        if not overwrite:
            raise InputError(f"{out} exists already; name another folder, or replace it with --overwrite")


def _put_in_place(made: Path, out: Path, aside: Path) -> None:
    """Rename `made` to `out`. Move an old export aside first, and back if this fails."""
    try:
        if out.is_dir():
            out.rename(aside)
        made.rename(out)
    except OSError as error:
        if aside.is_dir():
            aside.rename(out)
        raise InputError(f"{out} could not be created: {error}; the old export is unchanged") from error
