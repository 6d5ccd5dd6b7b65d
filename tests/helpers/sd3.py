"""A small Stable Diffusion 3.5 with random weights, as diffusers saves it."""

from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL, SD3Transformer2DModel

from durian_jax.models.positions import canvas_position_code

TRANSFORMER = dict(sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=16,
                   num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=32, pooled_projection_dim=10,
                   pos_embed_max_size=24, dual_attention_layers=(0, 1), qk_norm="rms_norm")
# The canvas takes pictures of up to 32 px.
SIZE = 32


def write_sd3(folder: Path) -> None:
    """Write transformer and vae."""
    SD3Transformer2DModel(**TRANSFORMER).save_pretrained(folder / "transformer")
    AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
                  up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, scaling_factor=1.5305,
                  shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False).save_pretrained(folder / "vae")


def position_table(origin: float, step: float) -> np.ndarray:
    """(1, S * S, C), the table of the code of (i - origin) * step."""
    y, x = np.mgrid[:24, :24]
    code = canvas_position_code((x - origin) * step, (y - origin) * step, 32)
    return code.reshape(1, 24 * 24, 32)
