"""`durian import`: pretrained parts to an initial Durian checkpoint (paper, "initialised from Stable Diffusion").

DNet and the ReferenceNets start as the same U-Net. Other parameters start fresh: the keypoint encoder, the
ReferenceNets' mask channel, the projection of the identity embedding and, if no adapter is given, the motion modules.
All of these but the projection start without effect.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.checkpoints.description import Description
from durian_jax.checkpoints.weights import write_checkpoint
from durian_jax.convert import sizes
from durian_jax.convert.families.durian import BASE_PARTS, PARTS
from durian_jax.convert.families.durian.network_maps import REFERENCE_NETWORKS, network_maps
from durian_jax.convert.files import find_folder, read_json
from durian_jax.convert.names import Tensor
from durian_jax.convert.tensors import (
    NO_MIDDLE,
    POSITION_NUMBERS,
    POSITION_TABLES,
    TEXT_HALF,
    Excuse,
    check_count,
    check_fit,
    check_position_tables,
)
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.files import check_folder
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.parameters import init_params, param_shapes, zero_at_start
from durian_jax.progress import progress_bar
from durian_jax.tensor_files import TensorFiles

# Old names of the attention in diffusers' autoencoders, and today's.
_OLD_NAMES = (
    (r"(.*\.attentions\.0)\.query\.(.*)", r"\1.to_q.\2"), (r"(.*\.attentions\.0)\.key\.(.*)", r"\1.to_k.\2"),
    (r"(.*\.attentions\.0)\.value\.(.*)", r"\1.to_v.\2"), (r"(.*\.attentions\.0)\.proj_attn\.(.*)", r"\1.to_out.0.\2"),
)

_NOT_BUILT = Excuse("parts of ReferenceNets after the last attention site, which no loss reaches",
                    r"(conv_norm_out|conv_out|up_blocks)\..*")

_NO_CROSS_ATTENTION = Excuse("cross-attention, which this model does not have",
                             r".*\.transformer_blocks\.0\.(attn2|norm2)\..*")

# Stable Diffusion 1.5's objective, and usual settings to sample from it: for a model that is imported without a config.
STABLE_DIFFUSION = Objective("stable_diffusion", "epsilon", time_power=1.0, region_weight=0.0)
SAMPLING = Sampling(steps=20, guidance_scale=3.5)

# The keypoint encoder of a model that is imported without a config (the widths of Animate Anyone's pose guider).
_KEYPOINT_CHANNELS = (16, 32, 96, 256)


def import_checkpoint(out: str | Path, parts: Mapping[str, str], *, like: Description | None = None,
                      dtype: str = "float32", changes: Mapping[str, Any] | None = None, seed: int = 0) -> DurianConfig:
    """Make an initial checkpoint from pretrained parts.

    Args:
        out: folder of the checkpoint to write.
        parts: folders or hub ids (see `files.find_folder`) of "unet", a UNet2DConditionModel; "vae", an AutoencoderKL
            or AutoencoderTiny; perhaps "motion", a MotionAdapter: without it the motion modules start fresh; perhaps
            "image_encoder", a CLIP with a vision part: without it the model has no image encoder.
        like: the model to make, which the parts must fit; None: the model follows from the parts, at 512 px.
        dtype: of the file: "float32", "float16" or "bfloat16".
        changes: fields of the model that override `like` or the parts, for example image_size.
        seed: of fresh parameters.

    Returns:
        The model's config.

    Raises:
        InputError: a missing, unknown or damaged part; a config.json of another network, with every wrong field; parts
            that do not fit, with every wrong tensor. Nothing is written before these checks.
    """
    check_folder(out)
    if not set(BASE_PARTS) <= set(parts) <= set(PARTS):
        raise InputError(f"import: expected the parts unet and vae, and perhaps motion and image_encoder, found "
                         f"{', '.join(parts) or 'none'}")
    folders = {part: find_folder(name, PARTS[part]) for part, name in parts.items()}
    found = _found_config(folders)
    config = found if like is None else _checked_config(like.config, found, "motion" in folders)
    config = dataclasses.replace(config, **(changes or {}))

    files = {part: TensorFiles(folder, _OLD_NAMES) for part, folder in folders.items()}
    check_count(config, files.values())
    shapes = {path: x.shape for path, x in param_shapes(config).items()}
    maps = network_maps(config, shapes)
    pretrained = _pretrained(config, maps, shapes, files, folders)
    zeros, fresh_paths = zero_at_start(config), sorted(set(shapes) - set(pretrained))
    fresh = init_params(config, seed, only=frozenset(fresh_paths)) if fresh_paths else {}

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for path in progress_bar(sorted(shapes), desc="importing", unit="tensor"):
            if path in fresh:
                yield path, np.asarray(fresh[path])
            else:
                tensor, file = pretrained[path]
                values = tensor.to_ours(file.checked(tensor.name, path in zeros))
                yield path, _widened(values, shapes[path], config)

    objective, sampling = (STABLE_DIFFUSION, SAMPLING) if like is None else (like.objective, like.sampling)
    write_checkpoint(out, Description(config, objective, sampling), tensors(), dtype)
    return config


def _found_config(folders: Mapping[str, Path]) -> DurianConfig:
    """The model that follows from the parts."""
    origin = {part: str(folder / "config.json") for part, folder in folders.items()}
    unet = sizes.unet_config(read_json(folders["unet"]), origin["unet"])
    codec = sizes.codec_config(read_json(folders["vae"]), origin["vae"])
    fields = {"unet": unet, "codec": codec}
    halvings = len(bin(codec.downscale)) - 3
    fields["keypoint_channels"] = _KEYPOINT_CHANNELS[-halvings:]
    if "motion" in folders:
        heads, frames, _ = sizes.motion_config(read_json(folders["motion"]), unet, origin["motion"])
        fields["temporal_heads"], fields["max_frames"] = heads, frames
    else:
        fields["temporal_heads"], fields["max_frames"] = unet.heads[0], 32
    if "image_encoder" in folders:
        fields["image_encoder"] = sizes.image_encoder_config(read_json(folders["image_encoder"]),
                                                             origin["image_encoder"])
    return DurianConfig(image_size=512, keypoint_patch=1, dtype="bfloat16", **fields)


def _checked_config(config: DurianConfig, found: DurianConfig, has_motion: bool) -> DurianConfig:
    """The wanted config, if the parts have its sizes.

    Raises:
        InputError: names every difference.
    """
    problems = []
    if config.unet.context_dim is None:  # an ablation without the U-Net's cross-attention
        found = dataclasses.replace(found, unet=dataclasses.replace(found.unet, context_dim=None))
    if (config.image_encoder is None) != (found.image_encoder is None):
        have = "none is given" if found.image_encoder is None else "one is given"
        raise InputError(f"image encoder: {have}, the config has {'one' if config.image_encoder else 'none'}; "
                         f"{'name' if config.image_encoder else 'leave out'} --image-encoder or name another config")
    for part in ("unet", "codec", "image_encoder"):
        wanted, have = getattr(config, part), getattr(found, part)
        if type(wanted) is not type(have):
            problems.append(f"{part} is {type(have).__name__}, the config has {type(wanted).__name__}")
        elif wanted is not None:
            problems += [f"{part}.{field.name} is {getattr(have, field.name)}, the config has "
                         f"{getattr(wanted, field.name)}" for field in dataclasses.fields(wanted)
                         if getattr(wanted, field.name) != getattr(have, field.name)]
    if has_motion and config.temporal_heads != found.temporal_heads:
        problems.append(f"temporal_heads is {found.temporal_heads}, the config has {config.temporal_heads}")
    if has_motion and config.max_frames > found.max_frames:
        problems.append(f"the motion adapter takes {found.max_frames} frames, the config has {config.max_frames}")
    if problems:
        raise InputError(f"the parts do not fit the config ({len(problems)} fields): {'; '.join(problems)}; name other "
                         "parts or another config")
    return config


def _pretrained(config: DurianConfig, maps: Mapping[str, list[Tensor]], shapes: Mapping[str, tuple[int, ...]],
                files: Mapping[str, TensorFiles], folders: Mapping[str, Path]
                ) -> dict[str, tuple[Tensor, TensorFiles]]:
    """Our path -> tensor and file with its values; checks that every part fits.

    Raises:
        InputError: lists the tensors of every part that does not fit.
    """
    # Files hold input convolutions without the channels that Durian adds.
    narrow = dict(shapes)
    for network in ("denoiser", *REFERENCE_NETWORKS):
        path = f"{network}/conv_in/kernel"
        if path in narrow:
            narrow[path] = (*shapes[path][:2], config.codec.latent_channels, shapes[path][3])
    left_out = [_NO_CROSS_ATTENTION] if config.unet.context_dim is None else []
    excuses = {
        "denoiser": left_out, **{network: [_NOT_BUILT, *left_out] for network in REFERENCE_NETWORKS},
        "motion": [POSITION_TABLES], "image_encoder": [POSITION_NUMBERS, TEXT_HALF],
    }
    parts = {"denoiser": "unet", **{network: "unet" for network in REFERENCE_NETWORKS}, "motion": "motion",
             "codec": "vae", "image_encoder": "image_encoder"}
    if "motion" in folders:
        origin = str(folders["motion"])
        check_position_tables({name: files["motion"].checked(name) for name in files["motion"]
                               if re.fullmatch(POSITION_TABLES.pattern, name)}, origin)
        if not read_json(folders["motion"]).get("use_motion_mid_block", True):
            excuses["motion"].append(NO_MIDDLE)

    pretrained, problems = {}, {}
    for network, tensors in maps.items():
        part = parts.get(network)
        if part not in files or part in problems:  # the ReferenceNets would repeat the denoiser's problems
            continue
        try:
            absent = check_fit(tensors, narrow, files[part].shapes, str(folders[part]), excuses.get(network, ()))
        except InputError as error:
            problems[part] = str(error)
            continue
        present = [tensor for tensor in tensors if tensor.name not in absent]
        files[part].check_types(tensor.name for tensor in present)
        pretrained |= {tensor.path: (tensor, files[part]) for tensor in present}
    if problems:
        raise InputError(". ".join(problems.values()))
    return pretrained


def _widened(values: np.ndarray, shape: tuple[int, ...], config: DurianConfig) -> np.ndarray:
    """Add Durian's channels to an input convolution; return other values unchanged.

    A mask channel starts at 0. If one ReferenceNet sees two images, each counts half.
    """
    if values.shape == shape:
        return values
    extra = np.zeros((*values.shape[:2], int(config.mask_channel), values.shape[3]), values.dtype)
    if config.reference_mode == "single":
        return np.concatenate([values / 2, extra] * 2, 2)
    return np.concatenate([values, extra], 2)
