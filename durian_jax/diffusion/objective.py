"""What the network predicts, and the loss on it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from durian_jax.diffusion.schedule import Schedule, broadcast
from durian_jax.errors import InputError

PREDICTIONS = ("sample", "epsilon", "velocity")


@dataclass(frozen=True)
class Objective:
    """The denoising objective.

    Attributes:
        schedule: kind of noise schedule, see `Schedule`.
        prediction: the network's output: "sample" (clean latents), "epsilon" (noise) or "velocity"
            (alpha noise - sigma clean).
        time_power: training times are u ** time_power with u uniform in (0, 1); below 1 favours noise.
        region_weight: extra weight of the loss where the frames show the attributes.
        pixel_weight: weight of the squared error of decoded pixels, beside that of latents. Latents have
            equal variance, pixels do not: three directions of sixteen make up most of what one sees.
    """

    schedule: str = "flow"
    prediction: str = "sample"
    time_power: float = 0.6
    region_weight: float = 1.0
    pixel_weight: float = 0.0

    def __post_init__(self):
        Schedule(self.schedule)
        if self.prediction not in PREDICTIONS:
            raise InputError(f"unknown prediction type {self.prediction!r}; expected one of "
                             f"{', '.join(PREDICTIONS)}")
        if self.time_power <= 0 or self.region_weight < 0 or self.pixel_weight < 0:
            raise InputError(f"objective: expected time_power above 0 and weights of at least 0, found time_power="
                             f"{self.time_power}, region_weight={self.region_weight}, pixel_weight={self.pixel_weight}")
        if self.pixel_weight and self.prediction == "epsilon":
            raise InputError("objective: epsilon prediction says nothing about pixels in pure noise; set pixel_weight "
                             "to 0 or prediction to sample or velocity")

    @property
    def noise_schedule(self) -> Schedule:
        return Schedule(self.schedule)

    def sample_times(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Random training times in (0, 1)."""
        return jax.random.uniform(key, shape, minval=1e-3) ** self.time_power

    def target(self, clean: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
        """What the network should predict, of the shape of `clean` (B, F, ...), at times (B, F)."""
        if self.prediction == "sample":
            return clean
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = (broadcast(x, clean) for x in self.noise_schedule(t))
        return alpha * noise - sigma * clean

    def to_clean(self, prediction: jax.Array, noisy: jax.Array, t: jax.Array) -> jax.Array:
        """The clean latents that a prediction at z_t stands for; the inverse of `target`."""
        if self.prediction == "sample":
            return prediction
        alpha, sigma = (broadcast(x, noisy) for x in self.noise_schedule(t))
        if self.prediction == "epsilon":
            return (noisy - sigma * prediction) / jnp.maximum(alpha, 1e-6)
        return (alpha * noisy - sigma * prediction) / (alpha**2 + sigma**2)

    def loss(self, prediction: jax.Array, clean: jax.Array, noise: jax.Array, t: jax.Array,
             region: jax.Array) -> jax.Array:
        """Mean squared error of the prediction, see `weighted_error`.

        Args:
            prediction, clean, noise: (B, F, h, w, c).
            t: (B, F).
            region: (B, F, h, w, 1) in [0, 1].
        """
        return self.weighted_error(prediction, self.target(clean, noise, t), region)

    def weighted_error(self, values: jax.Array, target: jax.Array, region: jax.Array) -> jax.Array:
        """Mean squared error, weighted by 1 + region_weight * region (one channel, in [0, 1])."""
        weight = 1 + self.region_weight * region
        return jnp.mean(jnp.square(values - target) * weight) / jnp.mean(weight)
