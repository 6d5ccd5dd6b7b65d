"""Diffusion as pure functions: schedules, objectives, samplers. Only `draws` and `run` import jax."""

from durian_jax.diffusion.objective import PREDICTIONS, Objective
from durian_jax.diffusion.samplers import SAMPLERS, sampler_table
from durian_jax.diffusion.schedule import SCHEDULES, Schedule

__all__ = ["PREDICTIONS", "SAMPLERS", "SCHEDULES", "Objective", "Schedule", "sampler_table"]
