"""The autoencoders: diffusers' classes and our own small one."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn

from durian_jax.convert import sizes
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.pytorch.small_codec import Codec


def make_codec(config: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig, image_size: int) -> nn.Module:
    """Build the autoencoder of these sizes.

    Args:
        image_size: H = W of the pictures.
    """
    cls = {AutoencoderKLConfig: AutoencoderKL, AutoencoderTinyConfig: AutoencoderTiny}.get(type(config))
    return Codec(config) if cls is None else cls.from_config(sizes.codec_json(config, image_size))


def encode(vae: nn.Module, config: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig, images: torch.Tensor
           ) -> torch.Tensor:
    """Encode images (I, 3, H, W) in [-1, 1] to latents (I, c, h, w)."""
    encoded = vae.encode(images)
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    shift, scale = _statistics(config)
    return (latents - shift) * scale


def decode(vae: nn.Module, config: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig, latents: torch.Tensor,
           frames: int = 1) -> torch.Tensor:
    """Decode latents (B * F, c, h, w) to images (B * F, 3, H, W) float32, about [-1, 1].

    Args:
        frames: F, for decoders with temporal layers.
    """
    shift, scale = _statistics(config)
    options = {"frames": frames} if config.temporal_kernel else {}
    return vae.decode(latents / scale + shift, **options).sample.float()


def _statistics(config: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig) -> tuple[float, float]:
    """Shift and scale of the latents."""
    if isinstance(config, AutoencoderKLConfig):
        return config.shift_factor, config.scaling_factor
    return 0.0, config.scaling_factor if isinstance(config, AutoencoderTinyConfig) else 1.0


def resized(x: torch.Tensor, side: int, mode: str) -> torch.Tensor:
    """Resize (I, C, H, W) to (I, C, side, side), with antialiasing, like jax.image.resize."""
    return F.interpolate(x, (side, side), mode=mode, antialias=True, align_corners=False)
