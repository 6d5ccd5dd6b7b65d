"""One batch of clips from noise: the references once, then every denoising step in one compiled function."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective
from durian_jax.diffusion.sampling import FIELDS, Sampling
from durian_jax.diffusion.sampling_loop import sample
from durian_jax.errors import InputError
from durian_jax.images import to_uint8
from durian_jax.models.attention import choose_implementation
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian, References, select_references
from durian_jax.models.parameters import variables

# A frame of more latents attends in chunks where no kernel does it: all logits at once would take gigabytes.
_MANY_TOKENS = 1024
# Pixels that are decoded at a time: one picture of the paper's size.
_DECODED = 512 * 512


class JaxBackend:
    """A checkpoint as `animator.Backend` wants it.

    Args:
        checkpoint: the model.
    """

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.identity_encoder = checkpoint.identity_encoder

    def project_references(self, batch: dict[str, np.ndarray]) -> References:
        """See the function of this name."""
        return project_references(self.checkpoint, batch)

    def generate(self, batch: dict[str, np.ndarray], sampling: Sampling, **options) -> np.ndarray:
        """See the function of this name."""
        return generate(self.checkpoint, batch, sampling, **options)


def generate(checkpoint: Checkpoint, batch: dict[str, np.ndarray], sampling: Sampling = Sampling(), *,
             blend: np.ndarray | None = None, temporal: bool | None = None, first_frame: int = 0,
             references: References | None = None) -> np.ndarray:
    """Animate B portraits.

    Args:
        checkpoint: the model.
        batch: of `FIELDS`, float32, shapes as in training; `keypoints` (B, F, K, 3) gives F.
        sampling: how.
        blend: (B, A) weights summing to 1: interpolate between the attributes instead of composing them.
        temporal: run the motion modules. None: if there is more than one frame, as in training.
        first_frame: number of the batch's first frame in the video.
        references: from `project_references`; of the batch, keypoints and attribute_valid are then enough.

    Returns:
        (B, F, H, W, 3) uint8.

    Raises:
        InputError: more frames than the model's temporal layers know.
    """
    needed = FIELDS if references is None else ("keypoints", "attribute_valid")
    batch = {name: jnp.asarray(batch[name], jnp.float32) for name in needed if name in batch}
    frames = batch["keypoints"].shape[1]
    temporal = frames > 1 if temporal is None else temporal
    if temporal and frames > checkpoint.config.max_frames:
        raise InputError(f"{frames} frames at once exceed the {checkpoint.config.max_frames} that the model's temporal "
                         f"layers know; generate windows (inference.animator does)")
    images = _generate(checkpoint.params, batch, jnp.float32(sampling.guidance_scale), jnp.uint32(sampling.seed),
                       jnp.uint32(first_frame), None if blend is None else jnp.asarray(blend, jnp.float32), references,
                       config=checkpoint.config, objective=checkpoint.objective, steps=sampling.steps,
                       sampler=sampling.sampler, guided=sampling.is_guided, temporal=temporal,
                       attention=_attention(checkpoint.config))
    return np.asarray(images)


def project_references(checkpoint: Checkpoint, batch: dict[str, np.ndarray]) -> References:
    """What the denoiser attends to, for a batch whose references serve several calls of `generate`.

    Args:
        batch: the reference fields of `FIELDS`.
    """
    batch = {name: jnp.asarray(batch[name], jnp.float32) for name in FIELDS if name in batch and name != "keypoints"}
    return _project_references(checkpoint.params, batch, config=checkpoint.config,
                               attention=_attention(checkpoint.config))


def _attention(config: DurianConfig) -> str:
    """How attention in space is computed here: by the platform's kernel, else in chunks where frames are large."""
    device = jax.local_devices()[0]
    chosen = choose_implementation("auto", device.platform, config.dtype, getattr(device, "compute_capability", ""))
    return "chunked" if chosen == "xla" and config.latent_size**2 > _MANY_TOKENS else chosen


@partial(jax.jit, static_argnames=("config", "attention"))
def _project_references(params, batch, *, config: DurianConfig, attention: str):
    return Durian(config, attention=attention).apply(
        variables(params), method=lambda m: m.project_references(m.references_of(batch)))


@partial(jax.jit, static_argnames=("config", "objective", "steps", "sampler", "guided", "temporal", "attention"))
def _generate(params, batch, guidance_scale, seed, first_frame, blend, given_references, *, config: DurianConfig,
              objective: Objective, steps: int, sampler: str, guided: bool, temporal: bool, attention: str):
    b, f = batch["keypoints"].shape[:2]
    side = config.latent_size

    def run(m: Durian):
        references = given_references
        if references is None:
            references = m.project_references(m.references_of(batch))
        selection = select_references(config, batch["attribute_valid"], blend)
        schedule = objective.noise_schedule
        keypoints = m.encode_keypoints(batch["keypoints"])

        def predict_clean(z, t):
            times = jnp.full((b, f), t)
            timesteps = schedule.timesteps(times)
            prediction = m.denoise(z, timesteps, keypoints, references, selection, temporal=temporal)
            clean = objective.to_clean(prediction, z, times)
            if guided:
                # No references, hence no reference attention: the unconditional half is the cheaper one.
                free = objective.to_clean(m.denoise(z, timesteps, keypoints, temporal=temporal), z, times)
                clean = free + guidance_scale * (clean - free)
            return clean

        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(first_frame + jnp.arange(f))
        noise = jax.vmap(lambda key: jax.random.normal(key, (side, side, config.codec.latent_channels)))(keys)
        noise = jnp.broadcast_to(noise, (b, *noise.shape))
        return sample(predict_clean, noise, schedule, sampler, steps)

    return _decoded(params, Durian(config, attention=attention).apply(variables(params), method=run), config)


def _decoded(params, latents: jax.Array, config: DurianConfig) -> jax.Array:
    """Latents (..., h, w, c) -> pictures (..., H, W, 3) uint8, so many at a time as `_DECODED` allows."""
    count = math.prod(latents.shape[:-3])
    most = max(_DECODED // config.image_size**2, 1)
    at_once = next(size for size in range(min(count, most), 0, -1) if count % size == 0)
    pictures = jax.lax.map(lambda part: to_uint8(Durian(config).apply(variables(params), part, method="decode"), jnp),
                           latents.reshape(-1, at_once, *latents.shape[-3:]))
    return pictures.reshape(*latents.shape[:-3], *pictures.shape[2:])


def decode(checkpoint: Checkpoint, latents: np.ndarray) -> np.ndarray:
    """Latents (..., h, w, c) -> pictures (..., H, W, 3) uint8."""
    return np.asarray(_decode(checkpoint.params, jnp.asarray(latents), config=checkpoint.config))


@partial(jax.jit, static_argnames="config")
def _decode(params, latents, *, config: DurianConfig):
    return _decoded(params, latents, config)


def reconstruct(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    """Images (M, H, W, 3) in [-1, 1] through the codec and back, as uint8: the best any sample can be."""
    return np.asarray(_reconstruct(checkpoint.params, jnp.asarray(images), config=checkpoint.config))


@partial(jax.jit, static_argnames="config")
def _reconstruct(params, images, *, config: DurianConfig):
    return to_uint8(Durian(config).apply(variables(params), method=lambda m: m.decode(m.encode(images))), jnp)
