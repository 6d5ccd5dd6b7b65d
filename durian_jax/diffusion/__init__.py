"""Diffusion as pure functions: schedules, objectives, samplers."""

from durian_jax.diffusion.objective import PREDICTIONS, Objective
from durian_jax.diffusion.samplers import SAMPLERS, sample, sampler_table
from durian_jax.diffusion.schedule import SCHEDULES, Schedule

__all__ = ["PREDICTIONS", "SAMPLERS", "SCHEDULES", "Objective", "Schedule", "sample", "sampler_table"]
