"""The loss of each stage: parameters and batch in, a number out.

Axis letters: B clips, F frames, A attributes, H x W pixels, h x w latents, c latent channels.
"""

import jax
import jax.numpy as jnp

from durian_jax.diffusion import Objective
from durian_jax.diffusion.training_draws import sample_noise, sample_times
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian, drop_references, select_references


def codec_loss(config: DurianConfig, variables: dict, batch: dict, key: jax.Array, noise: float
               ) -> tuple[jax.Array, dict]:
    """Reconstruction of frames: absolute error of pixels and of their gradients.

    The latents are held near zero mean and unit variance by a penalty, which spares a stored scale,
    and are disturbed before decoding, which teaches the decoder to forgive the denoiser's errors.

    Args:
        noise: standard deviation of that disturbance.

    Returns:
        The loss and its parts.
    """
    model = Durian(config)
    frames = batch["frames"]
    latents = model.apply(variables, frames, method=model.encode)
    disturbed = latents + noise * jax.random.normal(key, latents.shape)
    decoded = model.apply(variables, disturbed, method=model.decode)
    difference = decoded - frames
    pixels = jnp.mean(jnp.abs(difference))
    gradients = jnp.mean(jnp.abs(jnp.diff(difference, axis=-2))) + jnp.mean(jnp.abs(jnp.diff(difference, axis=-3)))
    axes = tuple(range(latents.ndim - 1))
    moments = jnp.mean(latents.mean(axes) ** 2 + (latents.var(axes) - 1) ** 2)
    return pixels + gradients + 0.05 * moments, {"pixels": pixels, "gradients": gradients, "moments": moments}


def denoising_loss(config: DurianConfig, objective: Objective, variables: dict, batch: dict, key: jax.Array,
                   temporal: bool, guidance_dropout: float, remat: str = "none", attention: str = "xla"
                   ) -> tuple[jax.Array, dict]:
    """Self-reconstruction of a clip from its two references (Durian, section 3.3).

    Args:
        batch: see `images.model_inputs`: of pictures, or of encoded samples (`durian encode`).
        temporal: stage 2. The frames of a clip then share their diffusion time, as in sampling; in
            stage 1 they are independent images of one person.
        guidance_dropout: probability that a clip sees no reference at all (classifier-free guidance).
        remat: see `models.unet.unet.REMAT_POLICIES`.
        attention: see `models.attention.IMPLEMENTATIONS`.

    Returns:
        The loss and its parts.
    """
    model = Durian(config, remat, attention)
    b, f = batch["keypoints"].shape[:2]
    noise_key, time_key, drop_key = jax.random.split(key, 3)
    times = sample_times(objective, time_key, (b, 1 if temporal else f))
    times = jnp.broadcast_to(times, (b, f))
    schedule = objective.noise_schedule

    def forward(m: Durian):
        # Nothing that encodes is trained.
        clean = batch["frame_latents"] if "frame_latents" in batch else jax.lax.stop_gradient(m.encode(batch["frames"]))
        noise = sample_noise(objective, noise_key, clean.shape, shared_offset=temporal)
        noisy = schedule.add_noise(clean, noise, times)
        keep = jax.random.uniform(drop_key, (b,)) >= guidance_dropout
        selection = drop_references(select_references(config, batch["attribute_valid"]), keep)
        prediction = m.denoise(noisy, schedule.timesteps(times), m.encode_keypoints(batch["keypoints"]),
                               m.project_references(m.references_of(batch)), selection, temporal=temporal)
        decoded = m.decode(objective.to_clean(prediction, noisy, times)) if objective.pixel_weight else None
        return prediction, clean, noise, decoded

    prediction, clean, noise, decoded = model.apply(variables, method=forward)
    region = batch["frame_masks"]
    latent_region = jax.image.resize(region, (*clean.shape[:-1], 1), "linear")
    latents = objective.loss(prediction, clean, noise, times, latent_region)
    if decoded is None:
        return latents, {}
    pixels = objective.weighted_error(decoded, batch["frames"], region)
    return latents + objective.pixel_weight * pixels, {"latents": latents, "pixels": pixels}
