"""Diffusion as pure functions: schedules, objectives, samplers, guidance.

Only `training_draws` and `sampling_loop` import jax.
"""

from durian_jax.diffusion.objective import PREDICTIONS, Objective
from durian_jax.diffusion.samplers import SAMPLERS, sampler_table
from durian_jax.diffusion.sampling import Sampling
from durian_jax.diffusion.schedule import SCHEDULES, Schedule

__all__ = ["PREDICTIONS", "SAMPLERS", "SCHEDULES", "Objective", "Sampling", "Schedule", "sampler_table"]
