"""Random times and noise of training."""

import jax
import jax.numpy as jnp

from durian_jax.diffusion.objective import Objective
from durian_jax.diffusion.schedule import TIMESTEPS
from durian_jax.diffusion.times import shift_times


def sample_times(objective: Objective, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random training times in (0, 1]."""
    if objective.noise_schedule.is_discrete:
        steps = jnp.ceil(jax.random.uniform(key, shape) ** objective.time_power * TIMESTEPS)
        return jnp.maximum(steps, 1) / TIMESTEPS
    if objective.times == "logit_normal":
        times = jax.nn.sigmoid(objective.time_mean + objective.time_std * jax.random.normal(key, shape))
    else:
        times = jax.random.uniform(key, shape, minval=1e-3) ** objective.time_power
    return shift_times(times, objective.time_shift)


def sample_noise(objective: Objective, key: jax.Array, shape: tuple[int, ...], shared_offset: bool,
                 shared: bool = False) -> jax.Array:
    """Training noise (B, F, h, w, c).

    Args:
        shared_offset: the frames of a clip share the noise offset.
        shared: the frames of a clip share all noise.
    """
    b, f, *inner = shape
    noise = jnp.broadcast_to(jax.random.normal(key, (b, 1 if shared else f, *inner)), shape)
    if not objective.noise_offset:
        return noise
    offset = jax.random.normal(jax.random.fold_in(key, 1), (b, 1 if shared_offset else f, 1, 1, shape[-1]))
    return noise + objective.noise_offset * offset
