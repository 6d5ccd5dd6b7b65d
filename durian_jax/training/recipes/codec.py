"""Stages that train the small autoencoder between pixels and latents; for every family that uses it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion.objective import absolute_errors
from durian_jax.errors import InputError
from durian_jax.images import to_uint8
from durian_jax.inference.generate import reconstruct
from durian_jax.models.codecs.config import CodecConfig
from durian_jax.training.config import RunConfig
from durian_jax.training.stage import Stage, always


def codec_loss(run: RunConfig, model, variables: dict, batch: Mapping[str, jax.Array], key: jax.Array
               ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Reconstruction of frames: absolute error of pixels and of their gradients; see `training.stage.Loss`.

    A penalty holds the latents near zero mean and unit variance, so that no scale has to be stored. Noise of standard
    deviation `run.codec_noise` on the latents teaches the decoder to forgive the denoiser's errors.
    """
    frames = batch["frames"]
    latents = model.apply(variables, frames, method=model.encode)
    disturbed = latents + run.codec_noise * jax.random.normal(key, latents.shape)
    decoded = model.apply(variables, disturbed, method=model.decode)
    pixels, gradients = absolute_errors(decoded - frames, jnp.ones((*frames.shape[:-1], 1)))
    axes = tuple(range(latents.ndim - 1))
    moments = jnp.mean(latents.mean(axes) ** 2 + (latents.var(axes) - 1) ** 2)
    return pixels + gradients + 0.05 * moments, {"pixels": pixels, "gradients": gradients, "moments": moments}


def codec_columns(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Columns of a sample sheet: truth | reconstruction."""
    truth = batch["frames"][:, 0]
    return [to_uint8(truth), np.concatenate([reconstruct(checkpoint, picture[None]) for picture in truth])]


def check_own_codec(run: RunConfig) -> None:
    """Refuse to train a pretrained autoencoder from nothing.

    Raises:
        InputError: the model's codec is not the small one.
    """
    if not isinstance(run.model.codec, CodecConfig):
        raise InputError("stage codec trains the small autoencoder (codec_kind small) from nothing; `durian import` "
                         "brings a pretrained one")


# "decoder" sharpens the decoder at any time: latents stay as they are, and so does all that other stages have learned.
CODEC_STAGES = {stage.name: stage for stage in (
    Stage("codec", r"codec/(?!.*_temporal_)", codec_loss, codec_columns, needs_pixels=always, check=check_own_codec),
    Stage("decoder", r"codec/decoder/(?!.*_temporal_)", codec_loss, codec_columns, needs_pixels=always),
)}
