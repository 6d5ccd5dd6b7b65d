"""Noise schedules: how much of the clean latents and how much noise a moment of diffusion holds.

    z_t = alpha(t) x + sigma(t) noise,   t in [0, 1],  t = 0 clean
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from durian_jax.errors import InputError

SCHEDULES = ("flow", "cosine")


@dataclass(frozen=True)
class Schedule:
    """A noise schedule.

    Attributes:
        kind: "flow" (rectified flow: alpha = 1 - t, sigma = t) or "cosine" (variance preserving:
            alpha = cos(pi t / 2), sigma = sin(pi t / 2)).
    """

    kind: str = "flow"

    def __post_init__(self):
        if self.kind not in SCHEDULES:
            raise InputError(f"unknown noise schedule {self.kind!r}; expected one of {', '.join(SCHEDULES)}")

    def __call__(self, t, xp=jnp):
        """(alpha, sigma) at times t in [0, 1], each of t's shape; `xp` is jax.numpy or numpy."""
        if self.kind == "flow":
            return 1 - t, t
        return xp.cos(t * math.pi / 2), xp.sin(t * math.pi / 2)

    def add_noise(self, clean: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
        """z_t for clean latents (B, F, ...), noise of the same shape and times (B, F)."""
        alpha, sigma = (broadcast(x, clean) for x in self(t))
        return alpha * clean + sigma * noise


def broadcast(x: jax.Array, like: jax.Array) -> jax.Array:
    """Add trailing axes to x until it broadcasts against `like`."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))
