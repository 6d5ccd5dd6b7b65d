"""Metrics against the exact truth, and means over cases with confidence intervals.

T frames, H x W pixels. Pictures are uint8 RGB. Each metric takes one clip and returns one number, the mean
over its frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy import stats
from skimage.metrics import structural_similarity

_LEVELS = 255.0
_EDGE = 16.0  # grey levels per pixel
_STILL = 1  # grey levels
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


def edge_gradient(result: np.ndarray, truth: np.ndarray) -> float:
    """Return how steep the result is at the truth's edges: 1 = as steep, 0 = flat; NaN if the truth has no edges.

    The edges are the pixels where the truth's lightness changes by at least 16 grey levels per pixel. There, the
    result's gradient is projected onto the direction of the truth's, so neither grain nor other edges count.
    """
    own, true = _gradients(result), _gradients(truth)
    length = np.linalg.norm(true, axis=-1)
    edges = length >= _EDGE
    if not edges.any():
        return float("nan")
    return float((own * true).sum(-1)[edges].sum() / np.square(length[edges]).sum())


def still_change(result: np.ndarray, truth: np.ndarray, beyond: float = 0.0) -> float:
    """Return the mean change of the result from frame to frame where the truth stands still, in grey levels.

    Args:
        result, truth: (T, H, W, 3) uint8.
        beyond: count only pixels further than this from every pixel of the truth that moves, in pixels.

    Returns:
        NaN if there is one frame, or if nothing stands still.
    """
    changes = []
    for first, second, before, after in zip(result[:-1], result[1:], truth[:-1], truth[1:], strict=True):
        still = np.abs(after.astype(np.int16) - before).max(-1) <= _STILL
        if beyond and not still.all():
            still &= cv2.distanceTransform(still.astype(np.uint8), cv2.DIST_L2, 5) > beyond
        if still.any():
            changes.append(np.abs(second.astype(np.int16) - first).mean(-1)[still].mean())
    return float(np.mean(changes)) if changes else float("nan")


def temporal_error(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean difference between the changes of result and truth, in grey levels; NaN for one frame."""
    if len(result) < 2:
        return float("nan")
    change = np.diff(result.astype(np.int16), axis=0) - np.diff(truth.astype(np.int16), axis=0)
    return float(np.abs(change).mean())


def _gradients(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 2) gradients of the lightness in grey levels per pixel, by central differences."""
    grey = frames.astype(np.float32).mean(-1)
    return np.stack(np.gradient(grey, axis=(1, 2)), axis=-1)


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
    """Return the unweighted mean of independent means, without those that are NaN; half widths add in quadrature."""
    means = [m for m in means if not np.isnan(m.value)] or means
    half_width = np.sqrt(sum(m.half_width**2 for m in means)) / len(means)
    return Mean(float(np.mean([m.value for m in means])), float(half_width), sum(m.cases for m in means))


def mean_of_rows(rows: Sequence[Sequence[float]], same_people: bool = False) -> Mean:
    """Return the unweighted mean of the rows' means over their cases; ignore NaNs.

    Args:
        rows: a number for each case of each row.
        same_people: case n of every row shows the same people, so the rows are not independent. The interval is then
            that of the means of each case over the rows.
    """
    if not same_people:
        return mean_of_means([mean_of_cases(values) for values in rows])
    table = np.array([*zip(*rows, strict=True)], np.float64)
    return mean_of_cases([case[~np.isnan(case)].mean() if (~np.isnan(case)).any() else np.nan for case in table])
