"""`durian export`: a checkpoint as folders in diffusers' layout, which `durian_jax.torch` runs without JAX."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from tqdm import tqdm

from durian_jax.checkpoints.weights import read_config
from durian_jax.convert import sizes
from durian_jax.convert.bundle import BUNDLE_FILE, DTYPES, check_exportable, write_bundle
from durian_jax.convert.families.durian import network_maps, parameter_shapes
from durian_jax.convert.names import Tensor
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, open_identity_encoder
from durian_jax.files import writable_folder, write_json
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.positions import sequence_position_code
from durian_jax.tensor_files import WEIGHT_NAMES, TensorFiles, check_paths, write_tensors

# Largest file; beyond it a network is written in shards, as diffusers does.
SHARD_BYTES = 5 << 30

NUMPY_TYPES = dict(zip(DTYPES, (np.float32, np.float16, ml_dtypes.bfloat16), strict=True))

Network = tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]], str]


def export_checkpoint(checkpoint: str | Path, out: str | Path, dtype: str = "fp16", overwrite: bool = False,
                      shard_bytes: int = SHARD_BYTES) -> Path:
    """Write a checkpoint for PyTorch.

    Args:
        checkpoint: name of a shipped one, or a folder; a training run's export holds the averaged weights (EMA).
        out: folder to make. It appears whole or not at all.
        dtype: one of `DTYPES`.
        overwrite: replace an export that is there.
        shard_bytes: largest file.

    Returns:
        The folder, with one of each network (denoising_unet, portrait_reference, attribute_reference,
        keypoint_encoder, vae; image_encoder and identity_projection where there are such), scheduler, and durian.json
        with sizes and the SHA-256 of every file.

    Raises:
        InputError: no such checkpoint, a damaged one, one that only JAX runs, one with values that `dtype` cannot hold,
            a folder that is there already or holds something else, or a full disk.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    out = Path(out).resolve()
    config, objective, folder = read_config(checkpoint)
    check_exportable(config)
    _check_replaceable(out, folder, overwrite)
    files = TensorFiles(folder)
    check_paths(parameter_shapes(config), files.shapes, str(folder))
    open_identity_encoder(folder / IDENTITY_FILE, config.identity_dim)
    writable_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made = Path(temporary) / "made"
        with tqdm(total=len(files), desc="exporting", unit="tensor") as bar:
            def read(tensor: Tensor) -> np.ndarray:
                bar.update()
                with np.errstate(over="ignore"):  # it is refused here
                    x = tensor.to_theirs(files[tensor.path]).astype(NUMPY_TYPES[dtype])
                if not np.isfinite(x).all():
                    raise InputError(f"{folder}: {tensor.path} has values that are not finite in {dtype}; choose "
                                     "another dtype, or an earlier checkpoint if it holds such already")
                return x

            try:
                for part, (values, tensors, stem) in networks(config, files.shapes, read, dtype).items():
                    (made / part).mkdir(parents=True)
                    write_json(made / part / "config.json", values)
                    write_tensors(made / part, tensors, shard_bytes, stem, {"format": "pt"})
                write_json(made / "scheduler" / "scheduler_config.json", sizes.scheduler_json(objective))
                if config.identity_dim is not None:
                    shutil.copyfile(folder / IDENTITY_FILE, made / IDENTITY_FILE)
                write_bundle(made, config, objective, dtype)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{out} could not be written: {error}; is the disk full, or the checkpoint "
                                 "damaged?") from error
        _put_in_place(made, out, Path(temporary) / "old")
    return out


def _check_replaceable(out: Path, checkpoint: Path, overwrite: bool) -> None:
    """Refuse to write over anything but an export, and that only if it is asked for."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder to make")
    if out.is_mount() or out == Path.cwd():
        raise InputError(f"{out} cannot be replaced as a whole, being a mounted volume or the working folder; name a "
                         "folder in it")
    if checkpoint.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds the checkpoint itself ({checkpoint}); name another folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / BUNDLE_FILE).is_file():
            raise InputError(f"{out} holds something else than an export; name another folder")
        if not overwrite:
            raise InputError(f"{out} is there already; name another folder, or replace it with --overwrite")


def _put_in_place(made: Path, out: Path, aside: Path) -> None:
    """Rename, with what was there kept aside until the new one has its name."""
    try:
        if out.is_dir():
            out.rename(aside)
        made.rename(out)
    except OSError as error:
        if aside.is_dir():
            aside.rename(out)
        raise InputError(f"{out} could not be made: {error}; what was there is there still") from error


def networks(config: DurianConfig, shapes: Mapping[str, tuple[int, ...]], read: Callable[[Tensor], np.ndarray],
             dtype: str) -> dict[str, Network]:
    """Folder -> its config.json, its tensors (read as they are asked for), and the stem of their file.

    Where diffusers' classes fit the sizes, a folder is one of theirs: the denoiser a UNetMotionModel, the ReferenceNets
    UNet2DConditionModels. The latter have a tail after the last attention site that our ReferenceNets lack, since no
    feature depends on it; it is written as zeros.

    Args:
        shapes: of the model's parameters.
        read: the value of one of the checkpoint's tensors, as theirs.
        dtype: in which it is read.
    """
    maps = network_maps(config, dict(shapes))
    fits = not sizes.beyond_diffusers(config.unet)
    own = lambda name, **values: {"_class_name": name, **values}
    numbers = lambda network: ((tensor.name, read(tensor)) for tensor in maps[network])
    diffusers, transformers = WEIGHT_NAMES

    def denoiser() -> Iterator[tuple[str, np.ndarray]]:
        yield from numbers("denoiser")
        yield from numbers("motion")
        for name, width in motion_modules(maps["motion"], shapes):
            yield f"{name}.transformer_blocks.0.pos_embed.pe", sequence_position_code(config.max_frames, width)[None]

    def reference(network: str) -> Iterator[tuple[str, np.ndarray]]:
        yield from numbers(network)
        if fits:
            known = {tensor.name for tensor in maps[network]}
            for tensor in maps["denoiser"]:
                if tensor.name not in known:
                    yield tensor.name, np.zeros(tensor.their_shape(shapes[tensor.path]), NUMPY_TYPES[dtype])

    unet = lambda: own("DurianUNet", **config.to_dict()["unet"])
    parts: dict[str, Network] = {
        "denoising_unet": (sizes.motion_unet_json(config) if fits else unet(), denoiser(), diffusers)}
    for network in ("portrait_reference", "attribute_reference"):
        values = sizes.unet_json(config, int(config.mask_channel)) if fits else unet()
        parts[network] = values, reference(network), diffusers
    parts["keypoint_encoder"] = own("KeypointEncoder", channels=config.unet.channels[0],
                                    widths=config.keypoint_channels, patch=config.keypoint_patch), \
        numbers("keypoint_encoder"), diffusers
    parts["vae"] = sizes.codec_json(config), numbers("codec"), diffusers
    if config.image_encoder is not None:
        parts["image_encoder"] = sizes.image_encoder_json(config.image_encoder), numbers("image_encoder"), transformers
    if config.identity_dim is not None:
        parts["identity_projection"] = own("Linear", in_features=config.identity_dim,
                                           out_features=config.unet.context_dim), \
            numbers("identity_projection"), diffusers
    return parts


def motion_modules(tensors: list[Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    """Name and width of every motion module."""
    return [(tensor.name.removesuffix(".norm.weight"), shapes[tensor.path][0]) for tensor in tensors
            if tensor.name.endswith(".norm.weight")]
