"""Sizes from config.json files and back."""

import json

from durian_jax.configs import load_config
from durian_jax.convert import sizes
from durian_jax.models.family import model_config


def test_the_config_sd15_has_the_sizes_of_its_pretrained_parts():
    """Stable Diffusion 1.5, AnimateDiff and CLIP ViT-L/14."""
    config = model_config(load_config("sd15,stage=1").model.to_dict())
    in_json = lambda values: json.loads(json.dumps(values))
    unet = sizes.unet_json(config.unet, config.codec.latent_channels, config.latent_size)
    assert unet["block_out_channels"] == (320, 640, 1280, 1280) and unet["attention_head_dim"] == 8
    assert sizes.unet_config(in_json(unet), "x") == config.unet
    assert sizes.codec_config(in_json(sizes.codec_json(config.codec, config.image_size)), "x") == config.codec
    assert sizes.image_encoder_config(sizes.image_encoder_json(config.image_encoder), "x") == config.image_encoder
    motion = sizes.motion_json(config.unet, config.temporal_heads, config.max_frames)
    assert sizes.motion_config(in_json(motion), config.unet, "x") == (8, 32, True)
