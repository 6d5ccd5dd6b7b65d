"""Tables of samplers."""

import numpy as np
import pytest

from durian_jax.diffusion import Objective, Schedule, sampler_table
from durian_jax.errors import InputError


def test_ddim_of_flow_is_eulers_step():
    times, table = sampler_table(Schedule("flow"), "ddim", 4)
    z, x = 0.3, 0.9
    for t, (a, b, c) in zip(times, table, strict=True):
        velocity = (z - x) / t
        np.testing.assert_allclose(a * z + b * x, z - 0.25 * velocity, atol=1e-6)
        assert c == 0


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_constant_velocity_is_followed_along_the_straight_line(shift):
    objective = Objective("flow", "flow", time_shift=shift)
    clean, noise = np.random.default_rng(0).normal(size=(2, 1, 1, 8)).astype(np.float32)
    times, table = sampler_table(objective.noise_schedule, "ddim", 5, objective.time_shift)
    z = noise
    for t, after, (a, b, _) in zip(times, [*times[1:], 0.0], table, strict=True):
        z = a * z + b * objective.to_clean(noise - clean, z, np.full((1, 1), t))
        np.testing.assert_allclose(z, clean + after * (noise - clean), atol=1e-6)


def test_times_are_shifted_once():
    times, _ = sampler_table(Schedule("flow"), "ddim", 4, shift=3.0)
    t = np.linspace(1, 1 / 4, 4)
    np.testing.assert_allclose(times, 3 * t / (1 + 2 * t), rtol=1e-6)
    np.testing.assert_allclose(sampler_table(Schedule("flow"), "ddim", 4)[0], t, rtol=1e-6)


def test_unknown_samplers_and_no_steps_are_refused():
    with pytest.raises(InputError, match="sampler"):
        sampler_table(Schedule(), "euler", 3)
    with pytest.raises(InputError, match="at least 1 step"):
        sampler_table(Schedule(), "ddim", 0)
