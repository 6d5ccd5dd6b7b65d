"""Metrics against literal values."""

import cv2
import numpy as np
import pytest
from scipy import stats

from durian_jax.evaluation import metrics


def _noise(rng, shape=(2, 32, 32, 3)):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_l1_of_a_constant_error():
    truth = np.full((3, 16, 16, 3), 100, np.uint8)
    assert metrics.l1(truth - 51, truth) == pytest.approx(0.2)


def test_psnr_of_a_constant_error():
    truth = np.full((3, 16, 16, 3), 100, np.uint8)
    assert metrics.psnr(truth + 10, truth) == pytest.approx(10 * np.log10(255**2 / 100))
    assert metrics.psnr(truth, truth) == pytest.approx(100)


def test_psnr_counts_only_the_region():
    truth = np.full((1, 16, 16, 3), 100, np.uint8)
    result = truth.copy()
    result[:, :8] += 51  # an error of a fifth of the range is 20 log10(5) dB
    upper = np.zeros((1, 16, 16), bool)
    upper[:, :8] = True
    assert metrics.psnr(result, truth, upper) == pytest.approx(20 * np.log10(5))
    assert metrics.psnr(result, truth, ~upper) == pytest.approx(100)
    assert metrics.psnr(result, truth) == pytest.approx(20 * np.log10(5) + 10 * np.log10(2))
    assert np.isnan(metrics.psnr(result, truth, np.zeros_like(upper)))


def test_psnr_skips_frames_without_region():
    truth = np.zeros((2, 8, 8, 3), np.uint8)
    result = truth.copy()
    result[1] = 255
    region = np.zeros((2, 8, 8), bool)
    region[1, 2:4] = True
    assert metrics.psnr(result, truth, region) == pytest.approx(0)


def test_ssim_is_one_for_equal_and_low_for_unrelated_pictures():
    rng = np.random.default_rng(0)
    a, b = _noise(rng), _noise(rng)
    assert metrics.ssim(a, a) == pytest.approx(1)
    assert abs(metrics.ssim(a, b)) < 0.1
    half = np.zeros((2, 32, 32), bool)
    half[:, :, :10] = True
    mixed = np.where(half[..., None], a, b)
    assert metrics.ssim(mixed, a, half) > 0.8 > 0.3 > metrics.ssim(mixed, a, ~half)


def test_ssim_of_flat_pictures_is_the_luminance_term():
    a, b = np.full((1, 16, 16, 3), 100, np.uint8), np.full((1, 16, 16, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert metrics.ssim(a, b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-6)


def test_sharpness_scales_with_contrast():
    rng = np.random.default_rng(0)
    truth = _noise(rng) // 2 * 2
    assert metrics.sharpness(truth, truth) == pytest.approx(1)
    assert metrics.sharpness(truth // 2, truth) == pytest.approx(0.5)
    assert metrics.sharpness(np.zeros_like(truth), truth) == 0


def test_edge_gradient_is_blind_to_grain_and_sees_blur():
    truth = np.zeros((1, 64, 64, 3), np.uint8)
    truth[:, 16:48, 16:48] = 200
    assert metrics.edge_gradient(truth, truth) == pytest.approx(1)
    noise = np.random.default_rng(0).normal(0, 20, truth.shape)
    grain = np.clip(truth + noise * (truth > 0), 0, 255).astype(np.uint8)
    assert metrics.sharpness(grain, truth) > 1.5 and 0.9 < metrics.edge_gradient(grain, truth) < 1.1
    blurred = cv2.GaussianBlur(truth[0], (0, 0), 2)[None]
    assert metrics.edge_gradient(blurred, truth) < 0.6
    # An edge elsewhere does not count.
    assert abs(metrics.edge_gradient(np.roll(truth, 8, 2)[:, 24:40], truth[:, 24:40])) < 0.05
    assert np.isnan(metrics.edge_gradient(truth, np.zeros_like(truth)))


def test_change_is_measured_where_the_truth_stands_still():
    truth = np.full((3, 32, 32, 3), 100, np.uint8)
    truth[1:, :, :8] = 150  # moves once, on the left
    result = truth.copy()
    result[1, :, 8:14] += 6  # flickers within six pixels of the motion
    result[1, :, 20:] += 4  # and further away
    near, far = metrics.still_change(result, truth), metrics.still_change(result, truth, beyond=6)
    # Of the 24 still columns of the first change and the 32 of the second.
    assert near == pytest.approx(((6 * 6 + 12 * 4) / 24 + (6 * 6 + 12 * 4) / 32) / 2)
    assert far == pytest.approx((12 * 4 / 18 + (6 * 6 + 12 * 4) / 32) / 2, rel=0.1)
    assert metrics.temporal_error(result, truth) == pytest.approx((6 * 6 + 12 * 4) / 32)
    assert metrics.temporal_error(truth, truth) == 0
    for one in (metrics.still_change, metrics.temporal_error):
        assert np.isnan(one(truth[:1], truth[:1]))


def test_confidence_interval_is_student_t():
    values = [1.0, 2.0, 3.0, float("nan"), 4.0]
    mean = metrics.mean_of_cases(values)
    low, high = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem([1, 2, 3, 4]))
    assert mean.cases == 4 and mean.value == 2.5
    assert mean.interval == pytest.approx((low, high))
    assert np.isnan(metrics.mean_of_cases([3.0]).half_width)


def test_weighted_cases_make_one_ratio():
    values, weights = np.array([2.0, -50.0, 4.0, np.nan]), np.array([3.0, 0.01, 2.0, 5.0])
    mean = metrics.mean_of_cases(values, weights)
    assert mean.value == pytest.approx((6 - 0.5 + 8) / 5.01) and mean.cases == 3
    alike, plain = metrics.mean_of_cases([1.0, 2.0, 4.0], [7, 7, 7]), metrics.mean_of_cases([1.0, 2.0, 4.0])
    assert alike.interval == pytest.approx(plain.interval)
    rng = np.random.default_rng(0)
    many = [metrics.mean_of_cases(rng.normal(1, 1, 30), rng.uniform(0.5, 2, 30)) for _ in range(400)]
    inside = np.mean([low < 1 < high for low, high in (mean.interval for mean in many)])
    assert 0.9 < inside < 0.98
    assert np.isnan(metrics.mean_of_cases([1.0, np.nan], [0.0, 1.0]).value)
    with pytest.raises(ValueError, match="a weight of at least 0 for each value"):
        metrics.mean_of_cases([1.0, 2.0], [1.0, np.nan])


def test_means_without_cases_do_not_count():
    nothing = metrics.mean_of_cases([float("nan")])
    assert metrics.mean_of_means([metrics.mean_of_cases([1.0, 3.0]), nothing]).value == 2
    assert np.isnan(metrics.mean_of_means([nothing]).value)


def test_mean_of_means_adds_half_widths_in_quadrature():
    mean = metrics.mean_of_means([metrics.Mean(1, 3, 5), metrics.Mean(3, 4, 7)])
    assert (mean.value, mean.half_width, mean.cases) == (2, 2.5, 12)


def test_means_of_summaries_become_text():
    summary = {"a": 1.234, "a_ci95": (1.0, 1.5), "b": 2.0, "b_ci95": (float("nan"), float("nan")), "c": None,
               "c_ci95": [None, None], "d": float("nan"), "d_ci95": (float("nan"), float("nan"))}
    assert [metrics.mean_text(summary, key, 2) for key in "abcd"] == ["1.23 ±0.25", "2.00", "-", "-"]
