"""Predictions and losses against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion import PREDICTIONS, SCHEDULES, Objective, Schedule
from durian_jax.errors import InputError

# Noise says nothing about clean latents where nothing of them is left; "flow" is the velocity of one schedule.
OBJECTIVES = [(schedule, prediction) for schedule in SCHEDULES for prediction in PREDICTIONS
              if (prediction != "epsilon" or not Schedule(schedule).ends_in_noise)
              and (prediction != "flow" or schedule == "flow")]


@pytest.mark.parametrize(("schedule", "prediction"), OBJECTIVES)
def test_target_and_to_clean_are_inverse(schedule, prediction):
    objective = Objective(schedule=schedule, prediction=prediction)
    clean, noise = (jax.random.normal(jax.random.key(i), (2, 3, 4, 4, 2)) for i in (0, 1))
    t = jnp.array([[0.1, 0.5, 0.9], [0.2, 0.6, 0.8]])
    noisy = objective.noise_schedule.add_noise(clean, noise, t)
    restored = objective.to_clean(objective.target(clean, noise, t), noisy, t)
    np.testing.assert_allclose(restored, clean, atol=1e-4)


def test_flow_predicts_the_direction_from_clean_latents_to_noise():
    objective = Objective("flow", "flow")
    clean, noise = np.random.default_rng(0).normal(size=(2, 1, 3, 2, 2, 1))
    t = np.array([[0.0, 0.25, 1.0]])
    np.testing.assert_array_equal(objective.target(clean, noise, t), noise - clean)
    noisy = objective.noise_schedule.add_noise(clean, noise, t)
    np.testing.assert_allclose(objective.to_clean(noise - clean, noisy, t), clean, atol=1e-14)


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


def test_loss_counts_the_region_more():
    objective = Objective(region_weight=3.0)
    zeros = jnp.zeros((1, 1, 2, 2, 1))
    wrong = zeros.at[0, 0, 0, 0, 0].set(1.0)
    region = zeros.at[0, 0, 0, 0, 0].set(1.0)
    t = jnp.full((1, 1), 0.5)
    inside = objective.loss(wrong, zeros, zeros, t, region)
    outside = objective.loss(wrong, zeros, zeros, t, jnp.roll(region, 1, 2))
    np.testing.assert_allclose(inside / outside, 4.0, rtol=1e-6)


def test_crispness_counts_pixels_and_gradients_once_each_by_size():
    objective = Objective(region_weight=3.0)
    truth, region = np.zeros((1, 1, 4, 4, 3)), np.zeros((1, 1, 4, 4, 1))
    step = truth.copy()
    step[..., 2:, :] = 1.0  # half of the pixels are wrong by 1, and one of three differences across
    assert objective.crispness_error(step, truth, region) == pytest.approx(1 / 2 + 1 / 3)
    assert objective.crispness_error(2 * step, truth, region) == pytest.approx(2 * (1 / 2 + 1 / 3))
    region[..., 2:, :] = 1.0
    assert objective.crispness_error(step, truth, region) == pytest.approx((4 / 2 + 4 / 3) / 2.5)


def test_change_error_ignores_what_stands_still():
    objective = Objective()
    truth = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 3))
    assert objective.change_error(truth + 5, truth) == pytest.approx(0)
    flicker = truth + np.array([0, 1, 0]).reshape(1, 3, 1, 1, 1)
    assert objective.change_error(flicker, truth) == pytest.approx(1)
    assert objective.change_error(flicker[:, :1], truth[:, :1]) == 0


@pytest.mark.parametrize(("values", "message"), [
    ({"region_weight": -1.0}, "region_weight: expected a finite number from 0 to .*, found -1.0"),
    ({"schedule": "stable_diffusion_zero_snr", "prediction": "epsilon"}, "set prediction to velocity"),
    ({"schedule": "flow", "prediction": "epsilon"}, "schedule flow, which ends in pure noise"),
    ({"schedule": "stable_diffusion", "prediction": "epsilon", "pixel_weight": 1.0},
     "pixel_weight: expected 0 for the prediction epsilon"),
    ({"schedule": "stable_diffusion", "prediction": "epsilon", "change_weight": 1.0},
     "change_weight: expected 0 for the prediction epsilon"),
    ({"absolute_weight": -1.0}, "absolute_weight: expected a finite number from 0"),
    ({"prediction": "score"},
     "prediction: expected a text that is one of sample, epsilon, velocity, flow, found 'score'"),
    ({"schedule": "linear"}, "schedule: .* found 'linear'"),
    ({"prediction": "flow", "min_snr": 5.0}, "schedule flow without min_snr for the prediction flow, .* min_snr 5.0"),
    ({"prediction": "flow", "schedule": "cosine"}, "for the prediction flow, found schedule cosine"),
    ({"schedule": "stable_diffusion", "time_shift": 3.0},
     "time_shift: expected 1 for the schedule stable_diffusion, which has discrete steps"),
    ({"schedule": "stable_diffusion_zero_snr", "times": "logit_normal"},
     "times: expected power for .* discrete steps, found logit_normal"),
    ({"times": "normal"}, "times: expected a text that is one of power, logit_normal, found 'normal'"),
    ({"time_shift": 0.0}, "time_shift: expected a finite number above 0"),
    ({"time_std": 0.0}, "time_std: expected a finite number above 0"),
    ({"pixel_weight": float("nan")}, "pixel_weight: .* found nan"), ({"pixel_weight": True}, "found True"),
    ({"time_power": 0.0}, "time_power: expected a finite number above 0 .* found 0.0"),
])
def test_contradictions_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Objective(**values)
