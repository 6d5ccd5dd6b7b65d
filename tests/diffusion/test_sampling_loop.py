"""Whole runs of the samplers against closed forms and against diffusers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from durian_jax.diffusion import SAMPLERS, SCHEDULES, Objective, Schedule
from durian_jax.diffusion.sampling_loop import sample


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_perfect_model_is_sampled_exactly(schedule, sampler, steps):
    """If the model always names the right clean latents, every sampler must end there."""
    clean, noise = (jax.random.normal(jax.random.key(i), (3, 4)) for i in (0, 1))
    result = sample(lambda z, t: clean, noise, Objective(schedule), sampler, steps)
    np.testing.assert_allclose(result, clean, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samplers_converge_on_gaussian_data_and_second_order_is_faster(schedule):
    """Data N(m, s^2): the ideal model is linear and the flow's end is m + s * noise."""
    m, s = 0.7, 0.3
    noise = jax.random.normal(jax.random.key(0), (64,))
    rule = Schedule(schedule)
    alpha, sigma = (float(x) for x in rule(1.0))
    exact = m + s * (noise - alpha * m) / np.sqrt(alpha**2 * s**2 + sigma**2)

    def posterior_mean(z, t):
        alpha, sigma = rule(t)
        return m + alpha * s**2 * (z - alpha * m) / (alpha**2 * s**2 + sigma**2)

    def error(sampler, steps):
        return float(jnp.abs(sample(posterior_mean, noise, Objective(schedule), sampler, steps) - exact).max())
    assert error("dpm++", 40) < error("dpm++", 10) and error("dpm++", 40) < error("ddim", 40)
    if rule.is_discrete:  # its last step is long in signal-to-noise ratio, and that error remains for both samplers
        assert error("ddim", 1000) < 8e-3 and error("dpm++", 1000) < 3e-3
    else:
        assert error("ddim", 400) < 5e-3 and error("dpm++", 40) < 0.5 * error("ddim", 40)


def test_the_model_is_asked_at_shifted_times():
    asked = []

    def predict_clean(z, t):
        jax.debug.callback(lambda value: asked.append(float(value)), t, ordered=True)
        return z
    sample(predict_clean, jnp.zeros(1), Objective(time_shift=3.0), "dpm++", 4)
    jax.effects_barrier()
    t = np.linspace(1, 1 / 4, 4)
    np.testing.assert_allclose(asked, 3 * t / (1 + 2 * t), rtol=1e-6)


@pytest.mark.parametrize(("schedule", "prediction"), [
    ("stable_diffusion", "epsilon"), ("stable_diffusion", "velocity"), ("stable_diffusion_zero_snr", "velocity")])
@pytest.mark.parametrize("steps", [4, 25, 50])  # divisors of 1000: for others, diffusers rounds twice
def test_ddim_equals_diffusers(schedule, prediction, steps):
    """A run over a made-up network: same timesteps, same latents as DDIMScheduler with trailing steps."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
        prediction_type={"epsilon": "epsilon", "velocity": "v_prediction"}[prediction], timestep_spacing="trailing",
        rescale_betas_zero_snr=schedule.endswith("zero_snr"))
    scheduler.set_timesteps(steps)
    noise = np.random.default_rng(0).normal(size=(1, 1, 4, 4, 3)).astype(np.float32)
    network = lambda z, timestep, xp: xp.sin(1.5 * z + timestep / 300)
    theirs = torch.tensor(noise)
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(network(theirs, timestep, torch), timestep, theirs).prev_sample

    objective, asked = Objective(schedule, prediction), []

    def predict_clean(z, t):
        timestep = objective.noise_schedule.timesteps(t)
        jax.debug.callback(lambda value: asked.append(float(value)), timestep, ordered=True)
        return objective.to_clean(network(z, timestep, jnp), z, jnp.full(z.shape[:2], t))
    ours = sample(predict_clean, jnp.asarray(noise), objective, "ddim", steps)
    jax.effects_barrier()
    assert asked == scheduler.timesteps.tolist()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)
