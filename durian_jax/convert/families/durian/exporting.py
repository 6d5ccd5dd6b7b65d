"""The parts of an exported Durian, in diffusers' layout. Imports no jax."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from durian_jax.convert import sizes
from durian_jax.convert.families.durian.network_maps import network_maps
from durian_jax.convert.families.family import Part
from durian_jax.convert.names import Tensor
from durian_jax.errors import InputError
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.positions import sequence_position_code
from durian_jax.tensor_files import WEIGHT_NAMES


def check_exportable(config: DurianConfig) -> None:
    """Refuse models that only JAX runs.

    Raises:
        InputError: names the field.
    """
    if config.reference_mode != "dual":
        raise InputError(f"reference_mode={config.reference_mode!r} is an ablation that only JAX runs; expected 'dual'")
    if config.portrait_capacity != 1 or config.attribute_capacity != 1:
        raise InputError("a model that drops reference tokens (portrait_capacity or attribute_capacity below 1) runs "
                         "in JAX only; set both to 1 in its config.json to export it without that")


def export_parts(config: DurianConfig, shapes: Mapping[str, tuple[int, ...]], read: Callable[[Tensor], np.ndarray],
                 dtype: np.dtype) -> dict[str, Part]:
    """Folder -> its part, see `FamilyConversion.export_parts`.

    A folder is one of diffusers' classes if these fit the sizes: the denoiser a UNetMotionModel, the ReferenceNets
    UNet2DConditionModels. The latter have a tail after the last attention site, which our ReferenceNets lack because no
    feature depends on it; it is written as zeros.
    """
    maps = network_maps(config, dict(shapes))
    unet, channels = config.unet, config.codec.latent_channels
    fits = not sizes.beyond_diffusers(unet)
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
                    yield tensor.name, np.zeros(tensor.their_shape(shapes[tensor.path]), dtype)

    plain: dict[str, Any] = own("DurianUNet", **config.to_dict()["unet"])
    motion = sizes.motion_unet_json(unet, channels, config.latent_size, config.temporal_heads, config.max_frames) \
        if fits else plain
    parts = {"denoising_unet": Part(motion, denoiser(), diffusers)}
    for network in ("portrait_reference", "attribute_reference"):
        values = sizes.unet_json(unet, channels, config.latent_size, int(config.mask_channel)) if fits else plain
        parts[network] = Part(values, reference(network), diffusers)
    parts["keypoint_encoder"] = Part(own("KeypointEncoder", channels=unet.channels[0], widths=config.keypoint_channels,
                                         patch=config.keypoint_patch), numbers("keypoint_encoder"), diffusers)
    parts["vae"] = Part(sizes.codec_json(config.codec, config.image_size), numbers("codec"), diffusers)
    if config.image_encoder is not None:
        parts["image_encoder"] = Part(sizes.image_encoder_json(config.image_encoder), numbers("image_encoder"),
                                      transformers)
    if config.identity_dim is not None:
        parts["identity_projection"] = Part(own("Linear", in_features=config.identity_dim,
                                                out_features=unet.context_dim),
                                            numbers("identity_projection"), diffusers)
    return parts


def motion_modules(tensors: list[Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    """Name and width of every motion module."""
    return [(tensor.name.removesuffix(".norm.weight"), shapes[tensor.path][0]) for tensor in tensors
            if tensor.name.endswith(".norm.weight")]
