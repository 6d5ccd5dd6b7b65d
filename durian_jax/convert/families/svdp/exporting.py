"""The parts of an exported SVDP, in diffusers' layout. Imports no jax."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np

from durian_jax.convert import sizes
from durian_jax.convert.families.family import Part
from durian_jax.convert.families.svdp.network_maps import network_maps
from durian_jax.convert.names import Tensor
from durian_jax.models.svdp.config import SVDPConfig
from durian_jax.tensor_files import WEIGHT_NAMES


def check_exportable(config: SVDPConfig) -> None:
    """Accept every model: PyTorch runs all of them."""


def export_parts(config: SVDPConfig, shapes: Mapping[str, tuple[int, ...]], read: Callable[[Tensor], np.ndarray],
                 dtype: np.dtype) -> dict[str, Part]:
    """Folder -> its part, see `FamilyConversion.export_parts`.

    The transformer has the names of diffusers' SD3Transformer2DModel, and the video blocks beside them. Its position
    table is computed and not written.
    """
    maps = network_maps(config, shapes)
    numbers = lambda network: ((tensor.name, read(tensor)) for tensor in maps[network])
    transformer = {"_class_name": "SVDPTransformer", "channels": config.codec.latent_channels,
                   "groups": shapes["transformer/group_embedding"][0], "aligned": config.aligned_count,
                   **asdict(config.mmdit)}
    return {"transformer": Part(transformer, numbers("transformer"), WEIGHT_NAMES[0]),
            "vae": Part(sizes.codec_json(config.codec, config.image_size), numbers("codec"), WEIGHT_NAMES[0])}
