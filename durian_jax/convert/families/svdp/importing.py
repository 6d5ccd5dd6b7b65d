"""`durian import`: Stable Diffusion 3.5 to an initial SVDP checkpoint (arXiv 2509.17476, "initialised from SD 3.5").

Video blocks, the masks' projection and the group embedding start fresh, all without effect.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from durian_jax.checkpoints.description import Description
from durian_jax.checkpoints.weights import write_checkpoint
from durian_jax.convert import sizes
from durian_jax.convert.families.svdp import BASE_PARTS, PARTS
from durian_jax.convert.families.svdp.canvas import known_canvases, matching_canvas
from durian_jax.convert.families.svdp.network_maps import network_maps
from durian_jax.convert.files import find_folder, read_json
from durian_jax.convert.names import Tensor
from durian_jax.convert.tensors import Excuse, check_count, check_fit
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.files import check_folder
from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.parameters import init_params, param_shapes, zero_at_start
from durian_jax.models.svdp.config import SVDPConfig
from durian_jax.progress import progress_bar
from durian_jax.tensor_files import TensorFiles

# Stable Diffusion 3.5's objective, and the paper's settings to sample: for a model that is imported without a config.
RECTIFIED_FLOW = Objective("flow", "flow", time_power=1.0, region_weight=0.0, times="logit_normal", time_shift=3.0)
SAMPLING = Sampling(steps=40, guidance_scale=(2.0, 2.5, 1.0), sampler="ddim")

# Number of null text tokens of a model that is imported without a config.
TEXT_TOKENS = 128

_TABLE = "pos_embed.pos_embed"
_POSITIONS = Excuse("the computed positions", re.escape(_TABLE))
_TEXT = Excuse("the text stream", r"context_embedder\..*|transformer_blocks\.\d+\.((norm1_context|ff_context)\..*|"
                                  r"attn\.(add_[qkv]_proj|norm_added_[qk]|to_add_out)\..*)")
_POOLED = Excuse("the pooled text embedding", r"time_text_embed\.text_embedder\..*")
_OURS = Excuse("parameters that only SVDP has", r"video_blocks\..*|(mask|aligned|stem)_embedding\.weight|"
                                               r"(aligned_choice|stem|retouch)\..*|group_embedding", missing=True)

# Fields of the transformer that its files do not decide.
_FREE = ("text_tokens", "video", "time_rotation", "canvas_origin", "canvas_step")


def import_checkpoint(out: str | Path, parts: Mapping[str, str], *, like: Description | None = None,
                      dtype: str = "float32", changes: Mapping[str, Any] | None = None, seed: int = 0) -> SVDPConfig:
    """Make an initial checkpoint from Stable Diffusion 3.5.

    Args:
        out: folder of the checkpoint to write.
        parts: folders or hub ids (see `files.find_folder`) of "transformer", an SD3Transformer2DModel, and "vae", an
            AutoencoderKL or AutoencoderTiny.
        like: the model to make, which the parts must fit; None: the model follows from the parts, at 512 px. A model
            without text leaves out their text stream; the pooled embedding of null text joins a bias.
        dtype: of the file: "float32", "float16" or "bfloat16".
        changes: fields of the model that override `like` or the parts, for example image_size.
        seed: of fresh parameters.

    Returns:
        The model's config.

    Raises:
        InputError: a missing, unknown or damaged part; a config.json of another network, with every wrong field; parts
            that do not fit, with every wrong tensor; an unknown position table. Nothing is written before these checks.
    """
    check_folder(out)
    if set(parts) != set(BASE_PARTS):
        raise InputError(f"import: expected the parts {' and '.join(BASE_PARTS)}, found {', '.join(parts) or 'none'}")
    folders = {part: find_folder(name, PARTS[part]) for part, name in parts.items()}
    origin = {part: str(folder / "config.json") for part, folder in folders.items()}
    codec = sizes.codec_config(read_json(folders["vae"]), origin["vae"])
    mmdit = sizes.mmdit_config(read_json(folders["transformer"]), codec.latent_channels, TEXT_TOKENS,
                               origin["transformer"])
    changes = {"image_size": 512 if like is None else like.config.image_size, **(changes or {})}
    found = SVDPConfig(max_frames=16, history=3, codec=codec, mmdit=mmdit, mode="joint", driving_capacity=1.0,
                       attribute_capacity=1.0, dtype="bfloat16", **changes)
    config = found if like is None else dataclasses.replace(_checked_config(like.config, found), **changes)

    files = {"transformer": TensorFiles(folders["transformer"]), "codec": TensorFiles(folders["vae"])}
    check_count(config, files.values())
    shapes = {path: x.shape for path, x in param_shapes(config).items()}
    left_out = _left_out(config.mmdit)
    places = {"transformer": str(folders["transformer"]), "codec": str(folders["vae"])}
    pretrained = _pretrained(config, shapes, files, places, left_out)
    config = _with_canvas(config, found.mmdit, files["transformer"], places["transformer"], given=like is not None)
    zeros, fresh_paths = zero_at_start(config), sorted(set(shapes) - set(pretrained))
    fresh = init_params(config, seed, only=frozenset(fresh_paths))
    pooled = _pooled_code(files["transformer"]) if config.mmdit.pooled_dim is None else 0
    _report(left_out, files["transformer"], fresh_paths, config.mmdit)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for path in progress_bar(sorted(shapes), desc="importing", unit="tensor"):
            if path in fresh:
                yield path, np.asarray(fresh[path])
                continue
            tensor, file = pretrained[path]
            values = tensor.to_ours(file.checked(tensor.name, path in zeros))
            if path == "transformer/time_embedding_2/bias" and config.mmdit.pooled_dim is None:
                values = values.astype(np.float32) + pooled
            yield path, values

    objective, sampling = (RECTIFIED_FLOW, SAMPLING) if like is None else (like.objective, like.sampling)
    write_checkpoint(out, Description(config, objective, sampling), tensors(), dtype)
    return config


def _checked_config(config: SVDPConfig, found: SVDPConfig) -> SVDPConfig:
    """The wanted config, if the parts have its sizes.

    Raises:
        InputError: names every difference.
    """
    problems = []
    if type(config.codec) is not type(found.codec):
        problems.append(f"codec is {type(found.codec).__name__}, the config has {type(config.codec).__name__}")
    free = [*_FREE, *(name for name in ("text_dim", "pooled_dim") if getattr(config.mmdit, name) is None)]
    for part in ("mmdit", "codec"):
        wanted, have = getattr(config, part), getattr(found, part)
        if type(wanted) is type(have):
            problems += [f"{part}.{field.name} is {getattr(have, field.name)}, the config has "
                         f"{getattr(wanted, field.name)}" for field in dataclasses.fields(wanted)
                         if field.name not in free and getattr(wanted, field.name) != getattr(have, field.name)]
    if problems:
        raise InputError(f"the parts do not fit the config ({len(problems)} fields): {'; '.join(problems)}; name other "
                         "parts or another config")
    return config


def _left_out(mmdit: MMDiTConfig) -> list[Excuse]:
    """What the model does without although the files have it."""
    return [_POSITIONS, *([_TEXT] if mmdit.text_dim is None else []), *([_POOLED] if mmdit.pooled_dim is None else [])]


def _pretrained(config: SVDPConfig, shapes: Mapping[str, tuple[int, ...]], files: Mapping[str, TensorFiles],
                origin: Mapping[str, str], left_out: list[Excuse]) -> dict[str, tuple[Tensor, TensorFiles]]:
    """Our path -> tensor and file with its values; checks that every part fits.

    Raises:
        InputError: lists the tensors of every part that does not fit.
    """
    excuses = {"transformer": [*left_out, _OURS], "codec": []}
    pretrained, problems = {}, []
    for network, tensors in network_maps(config, shapes).items():
        try:
            absent = check_fit(tensors, shapes, files[network].shapes, origin[network], excuses[network])
        except InputError as error:
            problems.append(str(error))
            continue
        present = [tensor for tensor in tensors if tensor.name not in absent]
        files[network].check_types(tensor.name for tensor in present)
        pretrained |= {tensor.path: (tensor, files[network]) for tensor in present}
    if problems:
        raise InputError(". ".join(problems))
    return pretrained


def _with_canvas(config: SVDPConfig, found: MMDiTConfig, transformer: TensorFiles, origin: str, given: bool
                 ) -> SVDPConfig:
    """The config with the position code of the stored table.

    Args:
        found: the transformer's own sizes.
        given: the config's own code must be that of the table.

    Raises:
        InputError: no table, another shape, or another code.
    """
    size, width = found.canvas_size, found.width
    expected = (1, size * size, width)
    if transformer.shapes.get(_TABLE) != expected:
        raise InputError(f"{origin}: expected {_TABLE} {expected}, found {transformer.shapes.get(_TABLE, 'none')}; the "
                         "position code is read from it")
    own = (config.mmdit.canvas_origin, config.mmdit.canvas_step)
    known = known_canvases(size, round(found.canvas_step * size))
    match = matching_canvas(transformer.checked(_TABLE)[0], [own, *known] if given else known)
    if match is None:
        tried = ", ".join(f"(i - {start:g}) * {step:.6g}" for start, step in known)
        raise InputError(f"{origin}: {_TABLE} is not the sinusoidal code of {tried}, and other codes are not "
                         "supported; choose another transformer")
    if given and match != own:
        raise InputError(f"{origin}: {_TABLE} is the code of (i - {match[0]:g}) * {match[1]!r}, the config has (i - "
                         f"{own[0]:g}) * {own[1]!r}; set model.mmdit.canvas_origin and canvas_step to these numbers")
    mmdit = dataclasses.replace(config.mmdit, canvas_origin=match[0], canvas_step=match[1])
    return dataclasses.replace(config, mmdit=mmdit)


def _pooled_code(transformer: TensorFiles) -> np.ndarray:
    """(C,) float32, what the pooled embedding of null text adds to every time code."""
    name = "time_text_embed.text_embedder.linear_"
    hidden, weight, bias = (transformer.checked(name + rest, may_be_zero=True).astype(np.float32)
                            for rest in ("1.bias", "2.weight", "2.bias"))
    return weight @ (hidden / (1 + np.exp(-hidden))) + bias


def _report(left_out: list[Excuse], transformer: TensorFiles, fresh: list[str], mmdit: MMDiTConfig) -> None:
    """Say what the checkpoint lacks of the parts, what starts fresh, and the code of positions that was found."""
    counts = [f"{sum(bool(re.fullmatch(rule.pattern, name)) for name in transformer)} of {rule.name}"
              for rule in left_out]
    tqdm.write(f"durian: tensors left out: {', '.join(counts)}; fresh: {len(fresh)} of video blocks, masks and groups; "
               f"positions: model.mmdit.canvas_origin={mmdit.canvas_origin:g}, canvas_step={mmdit.canvas_step!r}")
