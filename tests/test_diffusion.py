"""Schedules, objectives and samplers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion import PREDICTIONS, SAMPLERS, SCHEDULES, Objective, Schedule, sample, sampler_table
from durian_jax.errors import InputError


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_target_and_to_clean_are_inverse(schedule, prediction):
    objective = Objective(schedule=schedule, prediction=prediction)
    clean, noise = (jax.random.normal(jax.random.key(i), (2, 3, 4, 4, 2)) for i in (0, 1))
    t = jnp.array([[0.1, 0.5, 0.9], [0.2, 0.6, 0.8]])
    noisy = objective.noise_schedule.add_noise(clean, noise, t)
    restored = objective.to_clean(objective.target(clean, noise, t), noisy, t)
    np.testing.assert_allclose(restored, clean, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_run_from_clean_to_noise(schedule):
    alpha, sigma = Schedule(schedule)(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(alpha, [1, 0], atol=1e-6)
    np.testing.assert_allclose(sigma, [0, 1], atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_perfect_model_is_sampled_exactly(schedule, sampler, steps):
    """If the model always names the right clean latents, every sampler must end there."""
    clean, noise = (jax.random.normal(jax.random.key(i), (3, 4)) for i in (0, 1))
    result = sample(lambda z, t: clean, noise, Schedule(schedule), sampler, steps)
    np.testing.assert_allclose(result, clean, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samplers_converge_on_gaussian_data_and_second_order_is_faster(schedule):
    """Data N(m, s^2): the ideal model is linear and the flow's end is m + s * noise."""
    m, s = 0.7, 0.3
    noise = jax.random.normal(jax.random.key(0), (64,))
    exact = m + s * noise
    rule = Schedule(schedule)

    def posterior_mean(z, t):
        alpha, sigma = rule(t)
        return m + alpha * s**2 * (z - alpha * m) / (alpha**2 * s**2 + sigma**2)

    def error(sampler, steps):
        return float(jnp.abs(sample(posterior_mean, noise, rule, sampler, steps) - exact).max())
    assert error("ddim", 400) < 5e-3
    assert error("dpm++", 40) < 0.5 * error("ddim", 40)
    assert error("dpm++", 40) < error("dpm++", 10)


def test_ddim_of_flow_is_eulers_step():
    times, table = sampler_table(Schedule("flow"), "ddim", 4)
    z, x = 0.3, 0.9
    for t, (a, b, c) in zip(times, table, strict=True):
        velocity = (z - x) / t
        np.testing.assert_allclose(a * z + b * x, z - 0.25 * velocity, atol=1e-6)
        assert c == 0


def test_loss_counts_the_region_more():
    objective = Objective(region_weight=3.0)
    zeros = jnp.zeros((1, 1, 2, 2, 1))
    wrong = zeros.at[0, 0, 0, 0, 0].set(1.0)
    region = zeros.at[0, 0, 0, 0, 0].set(1.0)
    t = jnp.full((1, 1), 0.5)
    inside = objective.loss(wrong, zeros, zeros, t, region)
    outside = objective.loss(wrong, zeros, zeros, t, jnp.roll(region, 1, 2))
    np.testing.assert_allclose(inside / outside, 4.0, rtol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="weights of at least 0"):
        Objective(region_weight=-1.0)
    with pytest.raises(InputError, match="set pixel_weight to 0"):
        Objective(prediction="epsilon", pixel_weight=1.0)
    with pytest.raises(InputError, match="noise schedule 'linear'"):
        Schedule("linear")
    with pytest.raises(InputError, match="prediction type"):
        Objective(prediction="score")
    with pytest.raises(InputError, match="sampler"):
        sampler_table(Schedule(), "euler", 3)
    with pytest.raises(InputError, match="at least 1 step"):
        sampler_table(Schedule(), "ddim", 0)
