"""Metrics against the exact truth, and means over cases with confidence intervals.

T frames, H x W pixels. Pictures are uint8 RGB. Each metric takes one clip and returns one number, the mean
over its frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from skimage.metrics import structural_similarity

_LEVELS = 255.0
# A perfect picture scores 100 dB: one infinite value would make the mean infinite.
_SMALLEST_ERROR = _LEVELS**2 * 1e-10


def l1(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean absolute error, 0 to 1."""
    return float(np.abs(result.astype(np.float64) - truth).mean() / _LEVELS)


def psnr(result: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, at most 100.

    Args:
        result, truth: (T, H, W, 3) uint8.
        region: (T, H, W) bool, the pixels to measure; default: all pixels. Frames with an empty region are
            skipped. The result is NaN if the region is empty in every frame.
    """
    squared = (result.astype(np.float64) - truth) ** 2
    values = [10 * np.log10(_LEVELS**2 / max(error, _SMALLEST_ERROR))
              for error in _frame_means(squared.mean(-1), region)]
    return float(np.mean(values)) if values else float("nan")


def ssim(result: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Return the structural similarity (Wang et al. 2004, Gaussian window of 1.5 px), -1 to 1.

    `region` works as in `psnr`: the similarity map is averaged inside it. The Gaussian window may still
    cover pixels outside.
    """
    maps = np.stack([
        structural_similarity(a, b, channel_axis=-1, data_range=_LEVELS, gaussian_weights=True, sigma=1.5,
                              use_sample_covariance=False, full=True)[1].mean(-1)
        for a, b in zip(result, truth, strict=True)])
    values = _frame_means(maps, region)
    return float(np.mean(values)) if values else float("nan")


def sharpness(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean absolute gradient of the result divided by the truth's: 1 = as sharp, 0 = flat.

    A blurred result can score well in PSNR; its sharpness is low.
    """
    return _gradient(result) / max(_gradient(truth), 1e-6)


def _gradient(frames: np.ndarray) -> float:
    frames = frames.astype(np.float32)
    return float(np.abs(np.diff(frames, axis=1)).mean() + np.abs(np.diff(frames, axis=2)).mean())


def _frame_means(maps: np.ndarray, region: np.ndarray | None) -> list[float]:
    """Return the mean of each (H, W) map inside the region; skip frames with an empty region."""
    if region is None:
        return [float(m.mean()) for m in maps]
    return [float(m[r].mean()) for m, r in zip(maps, region, strict=True) if r.any()]


@dataclass(frozen=True)
class Mean:
    """A mean over independent cases with its 95 % confidence interval (Student's t).

    Attributes:
        value: the mean; NaN without cases.
        half_width: the interval is value +- half_width; NaN with fewer than two cases.
        cases: number of averaged cases; NaNs do not count.
    """

    value: float
    half_width: float
    cases: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the interval."""
        return self.value - self.half_width, self.value + self.half_width


def mean_of_cases(values, weights=None) -> Mean:
    """Return the mean over cases with its interval; ignore NaNs.

    Args:
        values: a number for each case.
        weights: of each case, >= 0; None: all count alike. The interval is that of a ratio of two means, linearised
            (Cochran 1977, eq. 6.13).

    Raises:
        ValueError: a value without weight, or with a negative one.
    """
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    valid = ~np.isnan(values)
    values, weights = values[valid], weights[valid]
    if not (weights >= 0).all():
        raise ValueError(f"expected a weight of at least 0 for each value, found {weights.tolist()}")
    n, total = len(values), weights.sum()
    if not total:
        return Mean(float("nan"), float("nan"), n)
    mean = (weights * values).sum() / total
    if n < 2:
        return Mean(float(mean), float("nan"), n)
    error = np.sqrt(((weights * (values - mean)) ** 2).sum() * n / (n - 1)) / total
    return Mean(float(mean), float(stats.t.ppf(0.975, n - 1) * error), n)


def mean_text(summary: Mapping[str, Any], key: str, digits: int) -> str:
    """Format a mean of a summary, with half of `<key>_ci95` if it has one; "-" if it has no value.

    Summaries read from JSON have None where computed ones have NaN.
    """
    missing = lambda x: x is None or np.isnan(x)
    value, (low, high) = summary[key], summary[f"{key}_ci95"]
    if missing(value):
        return "-"
    return f"{value:.{digits}f}" + ("" if missing(low) else f" ±{(high - low) / 2:.{digits}f}")


def mean_of_means(means: list[Mean]) -> Mean:
    """Return the unweighted mean of independent means; their half widths add in quadrature."""
    half_width = np.sqrt(sum(m.half_width**2 for m in means)) / len(means)
    return Mean(float(np.mean([m.value for m in means])), float(half_width), sum(m.cases for m in means))
