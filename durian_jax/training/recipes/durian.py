"""Durian's training stages and loss (arXiv 2509.04434, section 3.3).

Axis letters: B clips, F frames, H x W pixels, h x w latents, c latent channels.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion.training_draws import sample_noise, sample_times
from durian_jax.errors import InputError
from durian_jax.faces.draw import keypoint_image
from durian_jax.images import to_uint8
from durian_jax.inference.generate import decode
from durian_jax.models.durian.model import Durian
from durian_jax.training.config import RunConfig
from durian_jax.training.recipes.codec import CODEC_STAGES
from durian_jax.training.recipes.reconstruction import (
    check_joint,
    needs_pixels,
    reconstruction_loss,
    sampled_frames,
)
from durian_jax.training.stage import Stage, always


def denoising_loss(run: RunConfig, model: Durian, variables: dict, batch: Mapping[str, jax.Array], key: jax.Array, *,
                   temporal: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Self-reconstruction of a clip from its two references; see `training.stage.Loss`.

    A share `run.guidance_dropout` of the clips sees no reference (classifier-free guidance).

    Args:
        temporal: the frames of a clip share their diffusion time, as in sampling (stage 2); else they are independent
            images of one person (stage 1).
    """
    objective, (b, f) = run.objective, batch["keypoints"].shape[:2]
    noise_key, time_key, drop_key = jax.random.split(key, 3)
    times = sample_times(objective, time_key, (b, 1 if temporal else f))
    times = jnp.broadcast_to(times, (b, f))
    schedule = objective.noise_schedule

    def forward(m: Durian):
        # The encoders are never trained here.
        clean = batch["frame_latents"] if "frame_latents" in batch else jax.lax.stop_gradient(m.encode(batch["frames"]))
        noise = sample_noise(objective, noise_key, clean.shape, shared_offset=temporal,
                             shared=temporal and run.sampling.shared_noise)
        noisy = schedule.add_noise(clean, noise, times)
        keep = jax.random.uniform(drop_key, (b,)) >= run.branch_shares[0]
        condition = m.condition(batch).keep_references(keep)
        prediction = m.denoise(noisy, schedule.timesteps(times), condition, temporal=temporal)
        decoded = m.decode(objective.to_clean(prediction, noisy, times), temporal) if objective.weighs_pixels else None
        return prediction, clean, noise, times, decoded

    return reconstruction_loss(run, batch, *model.apply(variables, method=forward))


def columns(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray], *, temporal: bool) -> list[np.ndarray]:
    """Columns of a sample sheet: portrait | attribute | keypoints | result | truth; encoded samples are decoded."""
    if "frame_latents" in batch:
        pictures = [decode(checkpoint, x) for x in (
            batch["portrait_latents"], batch["attribute_latents"][:, 0], batch["frame_latents"][:, 0])]
    else:
        pictures = [to_uint8(x) for x in (batch["portrait"], batch["attributes"][:, 0], batch["frames"][:, 0])]
    portrait, attribute, truth = pictures
    keypoints = keypoint_image(batch["keypoints"][:, 0], *truth.shape[1:3])
    result = sampled_frames(checkpoint, batch, temporal)
    return [portrait, attribute, (keypoints * 255).astype(np.uint8), result, truth]


def _check(run: RunConfig) -> None:
    if run.objective.region_weight and not run.data.frame_masks:
        raise InputError("objective.region_weight needs to know where frames show attributes: data.frame_masks must "
                         "be true")


def _check_joint(run: RunConfig) -> None:
    check_joint(run)
    _check(run)


def _stage(name: str, trains: str, temporal: bool = False, **options) -> Stage:
    return Stage(name, trains, partial(denoising_loss, temporal=temporal), partial(columns, temporal=temporal),
                 temporal, **{"needs_pixels": needs_pixels, "check": _check, **options})


# Stage 1 trains on single frames, without the temporal layers; stage 2 trains these alone, on clips. "joint" is stage 1
# with the decoder, which learns to decode the denoiser's predictions and not only true latents. "joint2" is stage 2
# with the decoder and its temporal layers.
STAGES = {
    **CODEC_STAGES,
    "1": _stage("1", r"(?!codec/|image_encoder/)(?!.*motion_module)"),
    "joint": _stage("joint", r"(?!codec/(?!decoder/)|image_encoder/)(?!.*(motion_module|_temporal_))",
                    needs_pixels=always, check=_check_joint),
    "2": _stage("2", r".*motion_module", temporal=True),
    "joint2": _stage("joint2", r".*motion_module|codec/decoder/", temporal=True, needs_pixels=always,
                     check=_check_joint),
}
