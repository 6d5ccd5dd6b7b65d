"""Random times and noise of training."""

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion import Objective, Schedule
from durian_jax.diffusion.training_draws import sample_noise, sample_times


@pytest.mark.parametrize("shared", [False, True])
def test_noise_offset_is_one_shift_per_frame_or_clip(shared):
    key, shape = jax.random.key(0), (2, 3, 8, 8, 4)
    plain = sample_noise(Objective(), key, shape, shared)
    shift = sample_noise(Objective(noise_offset=0.1), key, shape, shared) - plain
    np.testing.assert_allclose(shift, jnp.broadcast_to(shift[:, :, :1, :1], shape), atol=1e-6)
    assert float(abs(shift).max()) > 0.05
    assert np.allclose(shift[:, 0], shift[:, 1], atol=1e-6) == shared


def test_frames_may_share_their_noise():
    key, shape = jax.random.key(0), (2, 3, 8, 8, 4)
    shared = sample_noise(Objective(noise_offset=0.1), key, shape, shared_offset=True, shared=True)
    np.testing.assert_array_equal(shared, jnp.broadcast_to(shared[:, :1], shape))
    assert float(abs(shared[0] - shared[1]).max()) > 0.1
    own = sample_noise(Objective(), key, shape, shared_offset=True)
    assert float(abs(own[:, 0] - own[:, 1]).max()) > 0.1


def test_training_times_of_stable_diffusion_are_its_steps():
    times = sample_times(Objective("stable_diffusion", "epsilon", time_power=1.0), jax.random.key(0), (40_000,))
    timesteps, counts = np.unique(Schedule("stable_diffusion").timesteps(times), return_counts=True)
    np.testing.assert_array_equal(timesteps, np.arange(1000))
    assert counts.min() > 10 and counts.max() < 90


@pytest.mark.parametrize(("mean", "std", "shift"), [(0.0, 1.0, 1.0), (-0.5, 1.5, 1.0), (0.5, 1.0, 3.0)])
def test_logit_normal_times_have_the_quantiles_of_the_logistic_function_of_a_normal_number(mean, std, shift):
    """arXiv 2403.03206, section 3.1. The shift adds its logarithm to the mean."""
    objective = Objective(times="logit_normal", time_mean=mean, time_std=std, time_shift=shift)
    times = np.asarray(sample_times(objective, jax.random.key(0), (40_000,)))
    assert times.min() > 0 and times.max() < 1
    shares = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    logits = mean + np.log(shift) + std * np.array([NormalDist().inv_cdf(share) for share in shares])
    np.testing.assert_allclose(np.quantile(times, shares), 1 / (1 + np.exp(-logits)), atol=0.01)
    if (mean, shift) == (0, 1):
        np.testing.assert_allclose(times.mean(), 0.5, atol=0.005)
