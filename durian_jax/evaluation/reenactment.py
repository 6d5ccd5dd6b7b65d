"""The reenactment benchmark: procedural people make another person's motion, with an exact, rendered answer.

A case shows person A in the motion of person B. Both the head's pose and the expression are B's (absolute truth). No
detector takes part: gaze, blink and mouth are read off by drawing A over a grid of values (`synthetic.readout`).

T frames, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from tqdm import tqdm

from durian_jax.evaluation import metrics
from durian_jax.faces.clip import Clip
from durian_jax.faces.regions import driven_region
from durian_jax.inference.animator import Animator
from durian_jax.synthetic import Motion, Person, add_driver, render, sample_driver, sample_motion, sample_person
from durian_jax.synthetic.readout import LIMITS, read_curve

SPLIT = "benchmark"
# Photos show people in motions of their own, which no case has.
_PHOTO_MOTIONS = 1 << 20
# Gaze cannot be read off eyes that are more closed than this.
_MOST_BLINK = 0.4
# Frames of a case whose curves are read.
_READ = 3
_BLOCK = 50  # frames over which brightness and PSNR of a long video are averaged

READ_KEYS = tuple(LIMITS)
LEAKS = ("leak_colour", "leak_shape", "leak_glasses")
CASE_KEYS = ("psnr", "psnr_eyes", "psnr_mouth", *READ_KEYS, *LEAKS)
LONG_KEYS = ("seam", "drift_brightness", "drift_psnr", "flicker")
SUMMARY_KEYS = (*CASE_KEYS, *LONG_KEYS)

_COLOURS = ("iris", "lip_colour", "brow")
_SHAPES = ("eye_size", "eye_distance", "eye_tilt", "eye_round", "brow_thickness", "brow_arch", "brow_tilt",
           "nose_width", "nose_length", "mouth_width", "lips")


@dataclass(frozen=True)
class ReenactmentCase:
    """A person, a driver and the exact answer.

    Attributes:
        person: A.
        driver_person: B.
        motion: T frames, B's.
        source: photo of A.
        driver: T frames of B.
        truth: T frames of A in B's motion.
    """

    person: Person
    driver_person: Person
    motion: Motion
    source: Clip
    driver: Clip
    truth: Clip

    def region(self, *kinds: str) -> np.ndarray:
        """(T, H, W) bool: where the truth shows some of `faces.topology.REGION_KINDS`."""
        size = self.truth.frames.shape[1:3]
        return np.stack([driven_region(keypoints, *size, kinds) for keypoints in self.truth.keypoints])

    @cached_property
    def leaks(self) -> dict[str, np.ndarray]:
        """Name of each leak -> (T, H, W, 3) uint8, the truth if it leaked fully; glasses only if B alone wears them."""
        mine, other = self.person.identity, self.driver_person.identity
        taken = lambda names: replace(self.person, identity=replace(mine, **{name: getattr(other, name)
                                                                             for name in names}))
        people = {"leak_colour": taken(_COLOURS), "leak_shape": taken(_SHAPES)}
        if "glasses" in self.driver_person.attributes and "glasses" not in self.person.attributes:
            people["leak_glasses"] = self.person.wear(glasses=self.driver_person)
        return {name: render(person, self.motion, self.truth.frames.shape[1]).frames for name, person in people.items()}


def reenactment_case(index: int, frames: int = 8, size: int = 128) -> ReenactmentCase:
    """Render case `index` of the benchmark.

    Args:
        index: number of the case, >= 0.
        frames: T.
        size: H = W in pixels.
    """
    person = sample_person(SPLIT, index)
    driver = sample_driver(SPLIT, index, person)
    motion = sample_motion(SPLIT, index, frames)
    truth = add_driver(render(person, motion, size), driver, motion)
    shown = Clip(truth.driver.frames, truth.driver.keypoints, np.zeros_like(truth.masks), motion.fps, driver.name)
    source = render(person, sample_motion(SPLIT, _PHOTO_MOTIONS + index, 1), size)
    return ReenactmentCase(person, driver, motion, source, shown, truth)


def score(case: ReenactmentCase, result: np.ndarray) -> dict[str, float]:
    """Compute `CASE_KEYS` of a case; result is (T, H, W, 3) uint8.

    Gaze, blink and mouth are absolute errors in the units of `synthetic.Motion`. A leak is the share of the way from
    the truth to the leaked truth that the result has gone, in percent; NaN if nothing could leak.
    """
    truth = case.truth.frames
    eyes, mouth = case.region("eyes"), case.region("mouth")
    scores = {"psnr": metrics.psnr(result, truth), "psnr_eyes": metrics.psnr(result, truth, eyes),
              "psnr_mouth": metrics.psnr(result, truth, mouth)}
    errors: dict[str, list[float]] = {curve: [] for curve in READ_KEYS}
    for t in np.unique(np.linspace(0, len(truth) - 1, _READ).astype(int)):
        now = case.motion[t:t + 1]
        for curve in READ_KEYS:
            if curve.startswith("gaze") and now.blink[0] > _MOST_BLINK:
                continue
            region = (mouth if curve == "mouth" else eyes)[t]
            read = read_curve(case.person, now, curve, result[t], region)
            errors[curve].append(abs(read - float(getattr(now, curve)[0])))
    scores.update({curve: float(np.mean(found)) if found else float("nan") for curve, found in errors.items()})
    error = result.astype(np.float64) - truth
    for name in LEAKS:
        scores[name] = float("nan")
        if name in case.leaks:
            way = case.leaks[name].astype(np.float64) - truth
            if (way**2).sum():
                scores[name] = float(100 * (error * way).sum() / (way**2).sum())
    return scores


def score_long(case: ReenactmentCase, result: np.ndarray, joins: Sequence[int]) -> dict[str, float]:
    """Compute `LONG_KEYS` of a long case; result is (T, H, W, 3) uint8.

    Args:
        joins: numbers of the frames that begin a new segment, without 0.

    Returns:
        seam: change from frame to frame at joins over the change elsewhere, each divided by the truth's; 1 is
        seamless. drift_brightness: largest change of brightness against the truth's, in percent. drift_psnr: PSNR of
        the last 50 frames minus that of the first 50, in dB. flicker: mean change, in grey levels, from frame to frame
        where the truth stands still. NaN where the video is too short.
    """
    truth = case.truth.frames
    change, true_change = (np.abs(np.diff(x.astype(np.float32), axis=0)).mean(-1) for x in (result, truth))
    still = true_change == 0
    scores = {"flicker": float(change[still].mean()) if still.any() else float("nan"), "seam": float("nan"),
              "drift_brightness": float("nan"), "drift_psnr": float("nan")}
    at_joins = np.isin(np.arange(1, len(truth)), joins)
    if at_joins.any() and not at_joins.all():
        ratio = lambda frames: change[frames].mean() / max(true_change[frames].mean(), 1e-6)
        scores["seam"] = float(ratio(at_joins) / ratio(~at_joins))
    if len(truth) >= 2 * _BLOCK:
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(truth) - _BLOCK + 1, _BLOCK)]
        light = np.array([result[block].mean() / truth[block].mean() for block in blocks])
        scores["drift_brightness"] = float(100 * np.abs(light / light[0] - 1).max())
        scores["drift_psnr"] = metrics.psnr(result[blocks[-1]], truth[blocks[-1]]) - metrics.psnr(
            result[blocks[0]], truth[blocks[0]])
    return scores


# Makes the video (T, H, W, 3) uint8 of a case.
System = Callable[[ReenactmentCase], np.ndarray]


def unchanged(case: ReenactmentCase) -> np.ndarray:
    """The source photo, standing still."""
    return np.broadcast_to(case.source.frames[0], case.truth.frames.shape)


def driven_by_pixels(animator: Animator, **options) -> System:
    """A model that sees the driver's pixels, where they are."""
    return lambda case: animator.animate(case.source, [], case.driver, absolute=True, **options)


def driven_by_keypoints(animator: Animator, oracle: bool = False) -> System:
    """A model that sees keypoints: the driver's motion relative to its first frame, or the answer's own keypoints.

    Args:
        oracle: give the model the answer's keypoints, which nobody has.
    """
    return lambda case: animator.animate(case.source, [], case.truth.keypoints if oracle else case.driver)


def measure(system: System, cases: Sequence[ReenactmentCase], long_cases: Sequence[ReenactmentCase] = (),
            joins: Callable[[int], Sequence[int]] = lambda frames: (), description: str = "cases") -> dict:
    """Run a system on all cases.

    Args:
        cases: short ones, for `CASE_KEYS`.
        long_cases: for `LONG_KEYS`.
        joins: number of frames -> frames at which the system's segments begin.
        description: for the progress bar.

    Returns:
        `cases`, all `SUMMARY_KEYS`, and for each key `<key>_ci95`: (low, high) of the mean's 95 % interval.
    """
    rows: list[dict[str, float]] = []
    with tqdm(total=len(cases) + len(long_cases), desc=description, unit="case") as bar:
        for case in cases:
            rows.append(score(case, system(case)))
            bar.update()
        for case in long_cases:
            rows.append(score_long(case, system(case), joins(len(case.motion))))
            bar.update()
    means = {key: metrics.mean_of_cases([row.get(key, np.nan) for row in rows]) for key in SUMMARY_KEYS}
    return {"cases": len(cases), **{key: mean.value for key, mean in means.items()},
            **{f"{key}_ci95": mean.interval for key, mean in means.items()}}
