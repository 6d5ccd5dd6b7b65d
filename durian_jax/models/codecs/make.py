"""Build the autoencoder of a config."""

import flax.linen as nn

from durian_jax.models.codecs.autoencoder_kl import AutoencoderKL
from durian_jax.models.codecs.autoencoder_tiny import AutoencoderTiny
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.models.codecs.small import Codec

_CLASSES = {CodecConfig: Codec, AutoencoderKLConfig: AutoencoderKL, AutoencoderTinyConfig: AutoencoderTiny}


def make_codec(config: CodecConfig | AutoencoderKLConfig | AutoencoderTinyConfig, dtype: str) -> nn.Module:
    """The autoencoder, with `encode` (M, H, W, 3) -> (M, h, w, c) and `decode`, its inverse.

    `decode` takes clips (B * F, h, w, c) and F: decoders with temporal layers mix the frames of a clip.
    """
    return _CLASSES[type(config)](config, dtype)
