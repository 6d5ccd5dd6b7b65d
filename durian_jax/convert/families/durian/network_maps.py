"""Durian's parameters, by network, under their names in diffusers and transformers. Imports no jax."""

from durian_jax.convert.names import (
    CODEC_RULES,
    Tensor,
    image_encoder_rules,
    keypoint_encoder_rules,
    name_map,
    unet_rules,
)
from durian_jax.models.durian.config import DurianConfig

# Networks of ours with a U-Net's parameters.
REFERENCE_NETWORKS = ("attribute_reference", "portrait_reference", "reference")


def network_maps(config: DurianConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, list[Tensor]]:
    """The name map of every network of a model.

    Args:
        config: of the model.
        shapes: path -> shape of its parameters.

    Returns:
        "denoiser", "motion" (the denoiser's motion modules), "codec", "keypoint_encoder" and, if the model has them,
        the ReferenceNets, "image_encoder" and "identity_projection". Paths in the maps are complete
        ("denoiser/conv_in/kernel").
    """
    rules = {"denoiser": unet_rules(config.unet), "codec": CODEC_RULES[type(config.codec)](config.codec),
             "keypoint_encoder": keypoint_encoder_rules(), "identity_projection": [(r"", "")],
             **{name: unet_rules(config.unet) for name in REFERENCE_NETWORKS}}
    if config.image_encoder is not None:
        rules["image_encoder"] = image_encoder_rules(config.image_encoder)
    maps = {}
    for network, network_rules in rules.items():
        inside = [(path.removeprefix(f"{network}/"), len(shape)) for path, shape in shapes.items()
                  if path.startswith(f"{network}/")]
        if inside:
            maps[network] = [Tensor(f"{network}/{tensor.path}", tensor.name, tensor.layout)
                             for tensor in name_map(inside, network_rules)]
    denoiser = maps.pop("denoiser")
    is_motion = lambda tensor: "motion_module" in tensor.path
    return {"denoiser": [tensor for tensor in denoiser if not is_motion(tensor)],
            "motion": [tensor for tensor in denoiser if is_motion(tensor)], **maps}
