"""Long videos: the windows or segments of the animator must not be seen.

T frames, H x W pixels.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from durian_jax.evaluation import metrics
from durian_jax.evaluation.suites.question import Question, Suite, first_person, kind_of, one_transfer
from durian_jax.synthetic import sample_person

TIMES = 8


def video(index: int, frames: int, size: int, split: str) -> Question:
    """A transfer in a long video."""
    kind, first = kind_of(index), first_person("long", index)
    person = sample_person(split, first)
    if kind in ("hair", "hat"):
        person = person.without("hat")  # as in the benchmark
    donor = sample_person(split, first + 2, require=(kind,))
    # Models that are driven by pixels refuse drivers whose eyes are hidden.
    driver = sample_person(split, first + 1).without("glasses", "hat")
    return Question(one_transfer(person, kind, donor, first, split, frames, size, driver=driver))


def seam_and_drift(result: np.ndarray, truth: np.ndarray, starts: Sequence[int]) -> dict[str, float]:
    """Measure how well the windows of a long video fit each other.

    Args:
        result, truth: (T, H, W, 3) uint8.
        starts: first frame of every window; all have the length of the last, which ends with the video.

    Returns:
        seam: change from frame to frame beyond the truth's, where two windows overlap or meet, minus the same
        elsewhere, in grey levels. drift: PSNR of the last window minus that of the first, in dB. NaN for one window.
    """
    if len(starts) < 2:
        return {"seam": float("nan"), "drift": float("nan")}
    window = len(truth) - starts[-1]
    change = [np.abs(np.diff(x.astype(np.float32), axis=0)).mean((1, 2, 3)) for x in (result, truth)]
    beyond, after = change[0] - change[1], np.arange(1, len(truth))
    join = np.logical_or.reduce([(after >= following) & (after <= start + window)
                                 for start, following in zip(starts[:-1], starts[1:], strict=True)])
    return {"seam": float(beyond[join].mean() - beyond[~join].mean()) if join.any() and not join.all()
            else float("nan"),
            "drift": metrics.psnr(result[-window:], truth[-window:]) - metrics.psnr(result[:window], truth[:window])}


def _rows(count: int, frames: int, size: int, split: str):
    return {"video": [partial(video, index, frames, size, split) for index in range(count)]}


LONG = Suite(_rows, times=TIMES)
