"""SVDP's parameters, by network, under their names in diffusers. Imports no jax."""

from collections.abc import Mapping

from durian_jax.convert.names import CODEC_RULES, Tensor, mmdit_rules, name_map
from durian_jax.models.svdp.config import SVDPConfig


def network_maps(config: SVDPConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[Tensor]]:
    """The name map of every network of a model.

    Args:
        config: of the model.
        shapes: path -> shape of its parameters.

    Returns:
        "transformer" and "codec". Paths in the maps are complete ("transformer/proj_out/kernel").
    """
    rules = {"transformer": mmdit_rules(), "codec": CODEC_RULES[type(config.codec)](config.codec)}
    maps = {}
    for network, network_rules in rules.items():
        inside = [(path.removeprefix(f"{network}/"), len(shape)) for path, shape in shapes.items()
                  if path.startswith(f"{network}/")]
        maps[network] = [Tensor(f"{network}/{tensor.path}", tensor.name, tensor.layout)
                         for tensor in name_map(inside, network_rules)]
    return maps
