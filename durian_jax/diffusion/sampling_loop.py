"""A sampler's steps in one compiled loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from durian_jax.diffusion.objective import Objective
from durian_jax.diffusion.samplers import sampler_table


def sample(predict_clean: Callable[[jax.Array, jax.Array], jax.Array], noise: jax.Array, objective: Objective,
           sampler: str, steps: int) -> jax.Array:
    """Run a sampler.

    Args:
        predict_clean: (z_t, t) -> clean latents, with t a scalar in (0, 1].
        noise: z_1, any shape.
        objective: of the model.
        sampler: one of `SAMPLERS`.
        steps: number of evaluations of the model.

    Returns:
        Clean latents of the shape of `noise`.
    """
    times, table = sampler_table(objective.noise_schedule, sampler, steps, objective.time_shift)

    def step(carry, inputs):
        z, previous = carry
        t, (a, b, c) = inputs
        x = predict_clean(z, t)
        return (a * z + b * x + c * previous, x), None

    (z, _), _ = jax.lax.scan(step, (noise, jnp.zeros_like(noise)), (times, table))
    return z
