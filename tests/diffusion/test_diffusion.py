"""Schedules, objectives and samplers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from durian_jax.diffusion import PREDICTIONS, SAMPLERS, SCHEDULES, Objective, Schedule, sampler_table
from durian_jax.diffusion.sampling_loop import sample
from durian_jax.diffusion.training_draws import sample_noise, sample_times
from durian_jax.errors import InputError

OBJECTIVES = [(schedule, prediction) for schedule in SCHEDULES for prediction in PREDICTIONS
              if prediction != "epsilon" or not Schedule(schedule).ends_in_noise]


@pytest.mark.parametrize(("schedule", "prediction"), OBJECTIVES)
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
    # Stable Diffusion was trained to the end on pictures of which a little is left: arXiv 2305.08891, section 2.
    rest = 0.068265 if schedule == "stable_diffusion" else 0.0
    np.testing.assert_allclose(alpha, [1, rest], atol=1e-6)
    np.testing.assert_allclose(sigma, [0, np.sqrt(1 - rest**2)], atol=1e-6)


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
    rule = Schedule(schedule)
    alpha, sigma = (float(x) for x in rule(1.0))
    exact = m + s * (noise - alpha * m) / np.sqrt(alpha**2 * s**2 + sigma**2)

    def posterior_mean(z, t):
        alpha, sigma = rule(t)
        return m + alpha * s**2 * (z - alpha * m) / (alpha**2 * s**2 + sigma**2)

    def error(sampler, steps):
        return float(jnp.abs(sample(posterior_mean, noise, rule, sampler, steps) - exact).max())
    assert error("dpm++", 40) < error("dpm++", 10) and error("dpm++", 40) < error("ddim", 40)
    if rule.is_discrete:  # its last step is a long one in signal-to-noise ratio, which is what both are left with
        assert error("ddim", 1000) < 8e-3 and error("dpm++", 1000) < 3e-3
    else:
        assert error("ddim", 400) < 5e-3 and error("dpm++", 40) < 0.5 * error("ddim", 40)


def test_ddim_of_flow_is_eulers_step():
    times, table = sampler_table(Schedule("flow"), "ddim", 4)
    z, x = 0.3, 0.9
    for t, (a, b, c) in zip(times, table, strict=True):
        velocity = (z - x) / t
        np.testing.assert_allclose(a * z + b * x, z - 0.25 * velocity, atol=1e-6)
        assert c == 0


@pytest.mark.parametrize(("schedule", "prediction"), [
    ("stable_diffusion", "epsilon"), ("stable_diffusion", "velocity"), ("stable_diffusion_zero_snr", "velocity")])
@pytest.mark.parametrize("steps", [4, 25, 50])  # numbers that divide 1000: with others theirs rounds twice
def test_ddim_is_that_of_diffusers(schedule, prediction, steps):
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
    rule = objective.noise_schedule

    def predict_clean(z, t):
        timestep = rule.timesteps(t)
        jax.debug.callback(lambda value: asked.append(float(value)), timestep, ordered=True)
        return objective.to_clean(network(z, timestep, jnp), z, jnp.full(z.shape[:2], t))
    ours = sample(predict_clean, jnp.asarray(noise), rule, "ddim", steps)
    jax.effects_barrier()
    assert asked == scheduler.timesteps.tolist()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_min_snr_weighs_clear_times_less():
    """Against arXiv 2303.09556: the clean latents' error counts min(SNR, 5) times."""
    t = jnp.array([[0.1, 0.5, 0.9]])
    alpha, sigma = Schedule("cosine")(t)
    snr = alpha**2 / sigma**2
    weight = lambda prediction: Objective("cosine", prediction, min_snr=5.0).time_weight(t)
    np.testing.assert_allclose(weight("sample"), np.minimum(snr, 5), rtol=1e-5)
    np.testing.assert_allclose(weight("velocity"), np.minimum(snr + 1, 5) / (snr + 1), rtol=1e-5)
    epsilon = Objective("stable_diffusion", "epsilon", min_snr=5.0)
    alpha, sigma = epsilon.noise_schedule(t)
    np.testing.assert_allclose(epsilon.time_weight(t), np.minimum(alpha**2 / sigma**2, 5) * sigma**2 / alpha**2,
                               rtol=1e-5)
    zero_snr = Objective("stable_diffusion_zero_snr", "velocity", min_snr=5.0)
    np.testing.assert_allclose(zero_snr.time_weight(jnp.ones((1, 1))), 1.0)  # pure noise counts in full
    zeros, ones = jnp.zeros((1, 3, 2, 2, 1)), jnp.ones((1, 3, 2, 2, 1))
    loss = Objective("cosine", "sample", min_snr=5.0, region_weight=0.0).loss(ones, zeros, zeros, t, zeros)
    np.testing.assert_allclose(loss, np.minimum(snr, 5).mean(), rtol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_noise_offset_is_one_shift_a_frame_or_clip(shared):
    key, shape = jax.random.key(0), (2, 3, 8, 8, 4)
    plain = sample_noise(Objective(), key, shape, shared)
    shift = sample_noise(Objective(noise_offset=0.1), key, shape, shared) - plain
    np.testing.assert_allclose(shift, jnp.broadcast_to(shift[:, :, :1, :1], shape), atol=1e-6)
    assert float(abs(shift).max()) > 0.05
    assert np.allclose(shift[:, 0], shift[:, 1], atol=1e-6) == shared


def test_training_times_of_stable_diffusion_are_its_steps():
    times = sample_times(Objective("stable_diffusion", "epsilon", time_power=1.0), jax.random.key(0), (40_000,))
    timesteps, counts = np.unique(Schedule("stable_diffusion").timesteps(times), return_counts=True)
    np.testing.assert_array_equal(timesteps, np.arange(1000))
    assert counts.min() > 10 and counts.max() < 90


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
    with pytest.raises(InputError, match="weights, min_snr and noise_offset of at least 0"):
        Objective(region_weight=-1.0)
    with pytest.raises(InputError, match="set prediction to velocity"):
        Objective("stable_diffusion_zero_snr", "epsilon")
    with pytest.raises(InputError, match="schedule flow ends in pure noise"):
        Objective("flow", "epsilon")
    with pytest.raises(InputError, match="set pixel_weight to 0"):
        Objective("stable_diffusion", "epsilon", pixel_weight=1.0)
    with pytest.raises(InputError, match="noise schedule 'linear'"):
        Schedule("linear")
    with pytest.raises(InputError, match="prediction type"):
        Objective(prediction="score")
    with pytest.raises(InputError, match="sampler"):
        sampler_table(Schedule(), "euler", 3)
    with pytest.raises(InputError, match="at least 1 step"):
        sampler_table(Schedule(), "ddim", 0)
