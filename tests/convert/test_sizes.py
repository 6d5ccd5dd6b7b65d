"""Sizes from config.json files and back."""

import json
import math
from dataclasses import replace

from durian_jax.configs import load_config
from durian_jax.convert import sizes
from durian_jax.models.family import model_config
from durian_jax.models.parameters import param_shapes
from durian_jax.training.config import RunConfig


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
    assert sizes.motion_config(in_json(motion), config.unet, "x") == (8, 16, True)  # of AnimateDiff's 32 frames


def test_the_config_sd35m_has_the_sizes_of_its_pretrained_parts():
    """Stable Diffusion 3.5 Medium: the fields of its transformer/config.json and vae/config.json, and its size."""
    config = RunConfig.read(load_config("svdp:sd35m,stage=video")).model
    codec = sizes.codec_json(config.codec, 1024)
    assert {name: codec[name] for name in ("latent_channels", "scaling_factor", "shift_factor", "use_quant_conv")} == {
        "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False}
    assert sizes.codec_config(json.loads(json.dumps(codec)), "x") == config.codec
    values = sizes.mmdit_json(config.mmdit, 16, 128)
    assert values["dual_attention_layers"] == tuple(range(13)) and values["caption_projection_dim"] == 1536
    # diffusers makes a table of i / 6; the file's table decides (convert.families.svdp.canvas).
    made = replace(config.mmdit, canvas_origin=0.0, canvas_step=1 / 6)
    assert sizes.mmdit_config(json.loads(json.dumps(values)), 16, 128, "x") == made
    shapes = {path: math.prod(x.shape) for path, x in param_shapes(config).items()}
    total, video = (sum(size for path, size in shapes.items() if path.startswith(prefix))
                    for prefix in ("transformer/", "transformer/video_blocks"))
    group_and_mask = shapes["transformer/group_embedding"] + shapes["transformer/mask_embedding/kernel"]
    assert (round((total - video - group_and_mask) / 1e6, 1), round(video / 1e6, 1)) == (2243.2, 396.6)
