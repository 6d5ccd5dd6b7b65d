"""Sample one batch of clips with JAX: the conditions once, then every denoising step in one compiled function."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.compiling import compiling
from durian_jax.diffusion import Objective, Sampling
from durian_jax.diffusion.guidance import active_branches, combine
from durian_jax.diffusion.sampling_loop import sample
from durian_jax.errors import InputError
from durian_jax.images import to_uint8
from durian_jax.inference.backend import Segment
from durian_jax.models.attention import AttentionMethod, choose_implementation
from durian_jax.models.batch import axis_sizes, sampling_fields
from durian_jax.models.family import ModelConfig
from durian_jax.models.parameters import variables

# A frame with more latents attends in chunks where no kernel does it: all logits at once would take gigabytes.
_MANY_TOKENS = 1024
# Number of pixels that are decoded at a time: one picture of 512 px.
_DECODED = 512 * 512


class JaxBackend:
    """A checkpoint as a `Backend`.

    Args:
        checkpoint: the model.
    """

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.sampling = checkpoint.sampling
        self.identity_encoder = checkpoint.identity_encoder

    def references(self, batch: Mapping[str, np.ndarray]) -> Any:
        """See `references`."""
        return references(self.checkpoint, batch)

    def generate_segment(self, batch: Mapping[str, np.ndarray], sampling: Sampling, **options: Any) -> Segment:
        """See `generate_segment`."""
        return generate_segment(self.checkpoint, batch, sampling, **options)


def generate(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray], sampling: Sampling | None = None, *,
             temporal: bool | None = None, first_frame: int = 0, references: Any = None) -> np.ndarray:
    """Sample B clips of F frames; see `generate_segment`.

    Returns:
        (B, F, H, W, 3) uint8.
    """
    return generate_segment(checkpoint, batch, sampling, temporal=temporal, first_frame=first_frame,
                            references=references).images


def generate_segment(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray], sampling: Sampling | None = None, *,
                     temporal: bool | None = None, first_frame: int = 0, references: Any = None) -> Segment:
    """Sample B clips of F frames.

    Args:
        checkpoint: the model.
        batch: float32 fields of the model's `batch_spec`, without targets (`models.batch.sampling_fields`).
        sampling: steps, guidance and seed; None: the checkpoint's defaults.
        temporal: run the temporal layers; None: if there is more than one frame, as in training.
        first_frame: number of the batch's first frame in the video.
        references: from `references`; the batch then needs no fields with role "reference".

    Returns:
        Their pictures and latents.

    Raises:
        InputError: more frames than the temporal layers take, or guidance that does not fit the model.
    """
    sampling = checkpoint.sampling if sampling is None else sampling
    config, spec = checkpoint.config, _spec(checkpoint.config, batch)
    batch = sampling.with_bent_weights(batch)
    fields = _fields(batch, sampling_fields(spec, with_references=references is None))
    frames = axis_sizes(spec, fields)["F"]
    temporal = frames > 1 if temporal is None else temporal
    if temporal and frames > config.max_frames:
        raise InputError(f"{frames} frames at once exceed the {config.max_frames} that the model's temporal "
                         f"layers take; generate segments (inference.animator does)")
    names = config.guidance_for([name for name, value in fields.items() if value.size])
    active, scales = active_branches(sampling.scales(config.guidance)[:len(names)])
    with compiling("the sampler"):  # returns before it has sampled
        images, latents = _generate(checkpoint.params, fields, jnp.float32(scales), jnp.uint32(sampling.seed),
                                    sampling.noise_frames(first_frame, frames), jnp.float32(sampling.noise_scale),
                                    references, config=config, objective=checkpoint.objective, steps=sampling.steps,
                                    sampler=sampling.sampler, active=active, temporal=temporal,
                                    attention=_attention(config))
    return Segment(np.asarray(images), np.asarray(latents))


def references(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray]) -> Any:
    """Compute what several calls of `generate` share, from the fields with role "reference"."""
    spec = _spec(checkpoint.config, batch)
    fields = _fields(batch, {name: field for name, field in spec.items() if field.role == "reference"})
    with compiling("the reference networks"):
        return _references(checkpoint.params, fields, config=checkpoint.config, attention=_attention(checkpoint.config))


def _spec(config: ModelConfig, batch: Mapping):
    """The spec that the batch follows: of pictures, or of encoded samples."""
    pictures = config.batch_spec()
    return pictures if set(batch) <= set(pictures) else {**pictures, **config.batch_spec(encoded=True)}


def _fields(batch: Mapping[str, np.ndarray], spec) -> dict[str, jax.Array]:
    return {name: jnp.asarray(batch[name], jnp.float32) for name in spec if name in batch}


def _attention(config: ModelConfig) -> AttentionMethod:
    """How attention in space is computed here: by the platform's kernel, else in chunks if frames are large."""
    device = jax.local_devices()[0]
    chosen = choose_implementation("auto", device.platform, config.dtype, getattr(device, "compute_capability", ""))
    return AttentionMethod("chunked" if chosen == "xla" and config.latent_size**2 > _MANY_TOKENS else chosen)


@partial(jax.jit, static_argnames=("config", "attention"))
def _references(params, batch, *, config: ModelConfig, attention: AttentionMethod):
    return config.create(attention=attention).apply(variables(params), batch, method="references")


@partial(jax.jit, static_argnames=("config", "objective", "steps", "sampler", "active", "temporal", "attention"))
def _generate(params, batch, scales, seed, noise_frames, noise_scale, references, *, config: ModelConfig,
              objective: Objective, steps: int, sampler: str, active: tuple[int, ...], temporal: bool,
              attention: AttentionMethod):
    sizes = axis_sizes(_spec(config, batch), batch)
    b, f, side = sizes["B"], sizes["F"], config.latent_size
    model = config.create(attention=attention)
    branches = model.apply(variables(params), method=lambda m: m.branches(m.condition(batch, references)))

    def predict_clean(z, t):
        times, predictions = jnp.full((b, f), t), []
        timesteps, mine = objective.noise_schedule.timesteps(times), params
        for i in active:
            prediction = model.apply(variables(mine), z, timesteps, branches[i], temporal=temporal, method="denoise")
            predictions.append(objective.to_clean(prediction, z, times))
            # One branch after the other: a CPU computes bfloat16 models in float32, and would keep the converted
            # parameters, twice their size, from one branch to the next.
            mine, predictions[-1] = jax.lax.optimization_barrier((mine, predictions[-1]))
        return combine(predictions, scales)

    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(noise_frames)
    noise = jax.vmap(lambda key: jax.random.normal(key, (side, side, config.codec.latent_channels)))(keys)
    noise = jnp.broadcast_to(noise * noise_scale, (b, *noise.shape))
    latents = sample(predict_clean, noise, objective, sampler, steps)
    # Frames are finished by what some branch has seen: a driver without weight leaves no trace.
    frames = model.apply(variables(params), _decoded(params, latents, config, temporal), branches[max(active)],
                         method="finished")
    return to_uint8(frames, jnp), latents


def _decoded(params, latents: jax.Array, config: ModelConfig, temporal: bool = False) -> jax.Array:
    """Latents (..., h, w, c) -> pictures (..., H, W, 3) float32, as many at a time as `_DECODED` allows.

    Args:
        temporal: the latents are clips (..., F, h, w, c). Decoders with temporal layers take a clip at a time.
    """
    temporal = temporal and bool(config.codec.temporal_kernel)
    count = math.prod(latents.shape[:-3])
    most = max(_DECODED // config.image_size**2, 1)
    at_once = latents.shape[-4] if temporal else next(
        size for size in range(min(count, most), 0, -1) if count % size == 0)
    model = config.create()
    pictures = jax.lax.map(lambda part: model.apply(variables(params), part, temporal, method="decode"),
                           latents.reshape(-1, at_once, *latents.shape[-3:]))
    return pictures.reshape(*latents.shape[:-3], *pictures.shape[2:])


def decode(checkpoint: Checkpoint, latents: np.ndarray) -> np.ndarray:
    """Latents (..., h, w, c) -> pictures (..., H, W, 3) uint8."""
    return np.asarray(_decode(checkpoint.params, jnp.asarray(latents), config=checkpoint.config))


@partial(jax.jit, static_argnames="config")
def _decode(params, latents, *, config: ModelConfig):
    return to_uint8(_decoded(params, latents, config), jnp)


def reconstruct(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    """Images (M, H, W, 3) in [-1, 1] -> through the codec and back, as uint8: the upper limit of any sample."""
    return np.asarray(_reconstruct(checkpoint.params, jnp.asarray(images), config=checkpoint.config))


@partial(jax.jit, static_argnames="config")
def _reconstruct(params, images, *, config: ModelConfig):
    return to_uint8(config.create().apply(variables(params), method=lambda m: m.decode(m.encode(images))), jnp)
