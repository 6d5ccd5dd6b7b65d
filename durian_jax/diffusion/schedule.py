"""Noise schedules: the shares of clean latents and noise at a moment of diffusion.

    z_t = alpha(t) x + sigma(t) noise,   t in [0, 1],  t = 0 clean

Written against the array API: arrays of numpy or jax in, the same kind out.
"""

import math
from dataclasses import dataclass

import numpy as np

from durian_jax.errors import InputError

SCHEDULES = ("flow", "cosine", "stable_diffusion", "stable_diffusion_zero_snr")

# Number of steps of Stable Diffusion's schedule; networks get t * TIMESTEPS.
TIMESTEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """A noise schedule.

    Attributes:
        kind: "flow" (rectified flow: alpha = 1 - t, sigma = t), "cosine" (variance preserving:
            alpha = cos(pi t / 2), sigma = sin(pi t / 2)), "stable_diffusion" (variance preserving with the
            1000 discrete steps that Stable Diffusion 1.5 was trained with, t = (step + 1) / 1000) or
            "stable_diffusion_zero_snr" (the same, rescaled to end in pure noise: arXiv 2305.08891, algorithm 1).
    """

    kind: str = "flow"

    def __post_init__(self):
        if self.kind not in SCHEDULES:
            raise InputError(f"unknown noise schedule {self.kind!r}; expected one of {', '.join(SCHEDULES)}")

    @property
    def is_discrete(self) -> bool:
        """Whether only multiples of 1 / 1000 are times."""
        return self.kind.startswith("stable_diffusion")

    @property
    def ends_in_noise(self) -> bool:
        """Whether z_1 is pure noise."""
        return self.kind != "stable_diffusion"

    def __call__(self, t):
        """(alpha, sigma) at times t in [0, 1], each of t's shape."""
        xp = array_module(t)
        if self.kind == "flow":
            return 1 - t, t
        if self.kind == "cosine":
            return xp.cos(t * math.pi / 2), xp.sin(t * math.pi / 2)
        alpha, sigma = _stable_diffusion(zero_snr=self.kind == "stable_diffusion_zero_snr")
        step = xp.clip(xp.round(t * TIMESTEPS), 0, TIMESTEPS).astype(int)
        return xp.asarray(alpha)[step], xp.asarray(sigma)[step]

    def timesteps(self, t):
        """Times t in [0, 1] -> the network's input, a number of the same shape in [0, 1000]."""
        return array_module(t).round(t * TIMESTEPS) - 1 if self.is_discrete else t * TIMESTEPS

    def add_noise(self, clean, noise, t):
        """z_t for clean latents (B, F, ...), noise of the same shape and times (B, F)."""
        alpha, sigma = (broadcast(x, clean) for x in self(t))
        return alpha * clean + sigma * noise


def _stable_diffusion(zero_snr: bool) -> tuple[np.ndarray, np.ndarray]:
    """(1001,) alpha and sigma, float32: clean latents, then the 1000 steps of Stable Diffusion's training."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS) ** 2
    alpha = np.sqrt(np.cumprod(1 - betas))
    if zero_snr:
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    alpha = np.concatenate([[1.0], alpha])
    return alpha.astype(np.float32), np.sqrt(1 - alpha**2).astype(np.float32)


def array_module(x):
    """The module of an array, numpy or jax.numpy; numpy for a plain number."""
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np


def broadcast(x, like):
    """Add trailing axes to x until it broadcasts against `like`."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))
