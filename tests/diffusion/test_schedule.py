"""Noise schedules."""

import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion import SCHEDULES, Schedule
from durian_jax.errors import InputError


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_run_from_clean_to_noise(schedule):
    alpha, sigma = Schedule(schedule)(jnp.array([0.0, 1.0]))
    # Stable Diffusion's last training step still shows a little of the picture: arXiv 2305.08891, section 2.
    rest = 0.068265 if schedule == "stable_diffusion" else 0.0
    np.testing.assert_allclose(alpha, [1, rest], atol=1e-6)
    np.testing.assert_allclose(sigma, [0, np.sqrt(1 - rest**2)], atol=1e-6)


def test_unknown_schedules_are_refused():
    with pytest.raises(InputError, match="noise schedule 'linear'"):
        Schedule("linear")
