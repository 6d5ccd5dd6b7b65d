"""Pretrained parts with random weights, as diffusers and transformers save them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL, AutoencoderTiny, MotionAdapter, UNet2DConditionModel
from safetensors.numpy import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

WIDTHS = (16, 32)
CLIP = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28,
            patch_size=14)
UNET = dict(block_out_channels=WIDTHS, layers_per_block=1, cross_attention_dim=24, attention_head_dim=2,
            norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))


def write_parts(folder: Path) -> None:
    """Write unet, vae, tiny_vae, motion_adapter and image_encoder."""
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
                  up_block_types=("UpDecoderBlock2D",) * 2).save_pretrained(folder / "vae")
    AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 2),
                    num_decoder_blocks=(2, 1)).save_pretrained(folder / "tiny_vae")
    MotionAdapter(block_out_channels=WIDTHS, motion_layers_per_block=1, motion_norm_num_groups=8,
                  motion_num_attention_heads=2).save_pretrained(folder / "motion_adapter")
    CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=24, **CLIP)).save_pretrained(
        folder / "image_encoder")


def parts(folder: Path, **changes: str | None) -> dict[str, str]:
    """Return the parts that `import_checkpoint` takes.

    Args:
        changes: part -> another folder name, or None to leave the part out.
    """
    names = {"unet": "unet", "vae": "vae", "motion": "motion_adapter", "image_encoder": "image_encoder"}
    return {part: str(folder / name) for part, name in (names | changes).items() if name is not None}


def tensor_file(folder: Path) -> Path:
    """Return the safetensors file of a part."""
    return next(folder.glob("*.safetensors"))


def change_tensors(folder: Path, change: Callable[[dict], dict]) -> None:
    """Replace the tensors of a part by a function of them."""
    path = tensor_file(folder)
    save_file({name: np.ascontiguousarray(x) for name, x in change(load_file(path)).items()}, path)


def change_config(folder: Path, **fields) -> None:
    """Change fields of a part's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
