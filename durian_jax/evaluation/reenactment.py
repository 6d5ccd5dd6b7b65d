"""The reenactment benchmark: procedural people make another person's motion, with an exact, rendered answer.

A case shows person A in the motion of person B. Both the head's pose and the expression are B's (absolute truth). No
detector takes part: gaze, blink and mouth are read off by drawing A over a grid of values (`synthetic.readout`).

T frames, H x W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from durian_jax.diffusion import Sampling
from durian_jax.evaluation import metrics
from durian_jax.faces.clip import Clip
from durian_jax.faces.regions import driven_region
from durian_jax.faces.topology import REGION_KINDS
from durian_jax.families import get_family
from durian_jax.inference.animator import Animator
from durian_jax.inference.segments import segment_starts
from durian_jax.progress import progress_bar
from durian_jax.synthetic import Motion, Person, add_driver, render, sample_driver, sample_motion, sample_person
from durian_jax.synthetic.readout import LIMITS, read_curve

SPLIT = "benchmark"
# Photos show people in motions of their own, which no case has.
_PHOTO_MOTIONS = 1 << 20
# Gaze cannot be read off eyes that are more closed than this.
_MOST_BLINK = 0.4
# Frames of a case whose curves are read.
_READ = 3
LONG_FRAMES = 500  # of a long case: 20 s
_STRIPE = 4  # pixels, of what hides a region
_BLOCK = 50  # frames over which brightness and PSNR of a long video are averaged

READ_KEYS = tuple(LIMITS)
LEAKS = ("leak_colour", "leak_shape", "leak_glasses")
# A model that blurs moves towards everybody: the same measure for a person whom no input shows.
STRANGER_LEAKS = tuple(f"{name}_stranger" for name in LEAKS)
# Errors in the eyes of people without glasses: tinted lenses hide most of what an eye does.
BARE_KEYS = {"gaze_x_bare": "gaze_x", "gaze_y_bare": "gaze_y", "blink_bare": "blink"}
CASE_KEYS = ("psnr", "psnr_eyes", "psnr_mouth", *READ_KEYS, *BARE_KEYS, *LEAKS, *STRANGER_LEAKS)
LONG_KEYS = ("seam", "drift_brightness", "drift_psnr", "flicker")
SUMMARY_KEYS = (*CASE_KEYS, *LONG_KEYS)

_COLOURS = ("iris", "lip_colour", "brow")
_SHAPES = ("eye_size", "eye_distance", "eye_tilt", "eye_round", "brow_thickness", "brow_arch", "brow_tilt",
           "nose_width", "nose_length", "mouth_width", "lips")


def _weight(leak: str) -> str:
    """Key of a leak's weight in the scores of a case."""
    return f"{leak}_weight"


@dataclass(frozen=True)
class ReenactmentCase:
    """A person, a driver and the exact answer.

    Attributes:
        person: A, as the answer shows A: with the attributes of other people.
        driver_person: B.
        stranger: a person whom nothing shows.
        motion: T frames, B's.
        source: photo of A.
        driver: T frames of B.
        truth: T frames of A in B's motion.
        attributes: kind and photo of each attribute that A gets from another person.
    """

    person: Person
    driver_person: Person
    stranger: Person
    motion: Motion
    source: Clip
    driver: Clip
    truth: Clip
    attributes: tuple[tuple[str, Clip], ...] = ()

    def region(self, *kinds: str) -> np.ndarray:
        """(T, H, W) bool: where the truth shows some of `faces.topology.REGION_KINDS`."""
        size = self.truth.frames.shape[1:3]
        return np.stack([driven_region(keypoints, *size, kinds) for keypoints in self.truth.keypoints])

    @cached_property
    def leaks(self) -> dict[str, np.ndarray]:
        """Name of each leak -> (T, H, W, 3) uint8, the truth if it leaked fully; glasses only if A wears none."""
        people = {**leaked(self.person, self.driver_person),
                  **{f"{name}_stranger": person for name, person in leaked(self.person, self.stranger).items()}}
        return {name: render(person, self.motion, self.truth.frames.shape[1]).frames for name, person in people.items()}


def leaked(person: Person, other: Person) -> dict[str, Person]:
    """Name of each leak -> the person with another one's colours, feature shapes, or glasses if only that one has."""
    taken = lambda names: replace(person, identity=replace(person.identity, **{
        name: getattr(other.identity, name) for name in names}))
    people = {"leak_colour": taken(_COLOURS), "leak_shape": taken(_SHAPES)}
    if "glasses" in other.attributes and "glasses" not in person.attributes:
        people["leak_glasses"] = person.wear(glasses=other)
    return people


def reenactment_case(index: int, frames: int = 8, size: int = 128, kinds: Sequence[str] = ()) -> ReenactmentCase:
    """Render case `index` of the benchmark.

    Args:
        index: number of the case, >= 0.
        frames: T.
        size: H = W in pixels.
        kinds: of attributes that the person gets from others.
    """
    person = sample_person(SPLIT, index)
    if {"hair", "hat"} & {*kinds}:
        person = person.without("hat")  # it would cover the hair, and a person cannot wear two
    source = render(person, sample_motion(SPLIT, _PHOTO_MOTIONS + index, 1), size)
    attributes = []
    for number, kind in enumerate(kinds, start=1):
        donor = sample_person(SPLIT, number * _PHOTO_MOTIONS + index, require=(kind,))
        shown = donor if kind == "hat" else donor.without("hat")
        attributes.append((kind, render(shown, sample_motion(SPLIT, number * _PHOTO_MOTIONS + index, 1), size)))
        person = person.wear(**{kind: donor})
    driver = sample_driver(SPLIT, index, person)
    motion = sample_motion(SPLIT, index, frames)
    truth = add_driver(render(person, motion, size), driver, motion)
    shown = Clip(truth.driver.frames, truth.driver.keypoints, np.zeros_like(truth.masks), motion.fps, driver.name)
    stranger = sample_driver(SPLIT, _PHOTO_MOTIONS + index, person)
    return ReenactmentCase(person, driver, stranger, motion, source, shown, truth, tuple(attributes))


def score(case: ReenactmentCase, result: np.ndarray) -> dict[str, float]:
    """Compute `CASE_KEYS` of a case; result is (T, H, W, 3) uint8.

    Gaze, blink and mouth are absolute errors in the units of `synthetic.Motion`. A leak is the projection of the error
    onto (leaked truth - truth), in percent of its length; NaN if nothing could leak. `<leak>_weight` is the square of
    this length, a mean over pixels. Pooled with these weights, all cases form one projection.
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
    bare = "glasses" not in case.person.attributes
    scores.update({name: scores[curve] if bare else float("nan") for name, curve in BARE_KEYS.items()})
    error = result.astype(np.float64) - truth
    for name in (*LEAKS, *STRANGER_LEAKS):
        way = case.leaks.get(name, truth).astype(np.float64) - truth
        weight = scores[_weight(name)] = float((way**2).mean())
        scores[name] = float(100 * (error * way).mean() / weight) if weight else float("nan")
    return scores


def score_long(case: ReenactmentCase, result: np.ndarray, joins: Sequence[int]) -> dict[str, float]:
    """Compute `LONG_KEYS` of a long case; result is (T, H, W, 3) uint8.

    Args:
        joins: numbers of the frames that begin a new segment, without 0.

    Returns:
        seam: change from frame to frame at joins over the change elsewhere, each divided by the truth's; 1 is
        seamless. drift_brightness: largest change of brightness against the truth's, in percent. drift_psnr: PSNR of
        the last 50 frames minus that of the first 50, in dB. flicker: mean change, in grey levels, from frame to frame
        where the truth stands still. NaN where the video is too short, or stands still.
    """
    truth = case.truth.frames
    change, true_change = (np.abs(np.diff(x.astype(np.float32), axis=0)).mean(-1) for x in (result, truth))
    still = true_change == 0
    scores = {"flicker": float(change[still].mean()) if still.any() else float("nan"), "seam": float("nan"),
              "drift_brightness": float("nan"), "drift_psnr": float("nan")}
    at_joins = np.isin(np.arange(1, len(truth)), joins)
    if at_joins.any() and not at_joins.all():
        ratio = lambda frames: change[frames].mean() / max(true_change[frames].mean(), 1e-6)
        elsewhere = ratio(~at_joins)
        scores["seam"] = float(ratio(at_joins) / elsewhere) if elsewhere else float("nan")
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


def by_driver(animator: Animator, sampling: Sampling | None = None, **options: Any) -> System:
    """A model that sees the driving clip: its pixels where they are, or its keypoints' motion, as the model needs."""
    options = {**get_family(animator.backend.config.family).load("inference").IN_PLACE, **options}
    return lambda case: animator.animate(case.source, case.attributes, case.driver, sampling=sampling,
                                         progress=False, **options)


def by_oracle(animator: Animator) -> System:
    """A model that sees the keypoints of the answer, which nobody has."""
    return lambda case: animator.animate(case.source, case.attributes, case.truth.keypoints, progress=False)


@dataclass(frozen=True)
class Measured:
    """The result of `measure`.

    Attributes:
        summary: `cases`, all `SUMMARY_KEYS`, and for each key `<key>_ci95`: (low, high) of the mean's 95 % interval.
        scores: keys of each case, the short ones first.
        examples: the first short cases with their results (T, H, W, 3).
    """

    summary: dict[str, Any]
    scores: list[dict[str, float]]
    examples: list[tuple[ReenactmentCase, np.ndarray]]


def measure(system: System, cases: Sequence[ReenactmentCase], long_cases: Sequence[ReenactmentCase] = (),
            segment: int = LONG_FRAMES, *, name: str = "cases", keep: int = 0) -> Measured:
    """Run a system on all cases.

    Args:
        cases: short ones, for `CASE_KEYS`.
        long_cases: for `LONG_KEYS`.
        segment: number of frames that the system makes at once.
        name: of the system, for the progress bar.
        keep: number of examples to return.
    """
    rows: list[dict[str, float]] = []
    examples: list[tuple[ReenactmentCase, np.ndarray]] = []
    with progress_bar(total=len(cases) + len(long_cases), desc=name, unit="case") as bar:
        for case in cases:
            result = system(case)
            rows.append(score(case, result))
            if len(examples) < keep:
                examples.append((case, result))
            bar.update()
        for case in long_cases:
            rows.append(score_long(case, system(case), segment_starts(len(case.motion), segment)[1:]))
            bar.update()
    return Measured(summarize(rows, len(cases)), rows, examples)


def summarize(rows: Sequence[Mapping[str, float]], cases: int) -> dict[str, Any]:
    """`Measured.summary` of the scores of all cases; the first `cases` are short."""
    column = lambda key: [row.get(key, np.nan) for row in rows]
    weights = {key: column(_weight(key)) for key in (*LEAKS, *STRANGER_LEAKS)}
    means = {key: metrics.mean_of_cases(column(key), weights.get(key)) for key in SUMMARY_KEYS}
    return {"cases": cases, **{key: mean.value for key, mean in means.items()},
            **{f"{key}_ci95": mean.interval for key, mean in means.items()}}


# --- inputs that are not as in training ---------------------------------------------------------------

def jittered(case: ReenactmentCase, pixels: float, seed: int = 0) -> ReenactmentCase:
    """The case with regions in the wrong place: in every frame all keypoints of the driver shift by up to `pixels`."""
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-1, 1, (len(case.driver), 1, 2)) * pixels / case.driver.frames.shape[1]
    keypoints = case.driver.keypoints.copy()
    keypoints[..., :2] += shift
    return replace(case, driver=replace(case.driver, keypoints=keypoints))


def occluded(case: ReenactmentCase, region: str) -> ReenactmentCase:
    """The case with something striped before a region of the driver's face, in every frame."""
    size = case.driver.frames.shape[1:3]
    stripes = np.where(np.arange(size[0]) // _STRIPE % 2, 70, 110).astype(np.uint8)
    frames = case.driver.frames.copy()
    for frame, keypoints in zip(frames, case.driver.keypoints, strict=True):
        hidden = driven_region(keypoints, *size, (region,))
        frame[hidden] = np.broadcast_to(stripes[:, None, None], frame.shape)[hidden]
    return replace(case, driver=replace(case.driver, frames=frames))


def robustness_systems(animator: Animator, sampling: Sampling) -> dict[str, System]:
    """Name -> system: each set of regions, regions in the wrong place, hidden regions, and each guidance scale."""
    drive = lambda **options: by_driver(animator, options.pop("sampling", sampling), **options)
    rows = {"all regions": drive()}
    for count in (1, 2):
        for kinds in combinations(REGION_KINDS, count):
            rows[f"only {' and '.join(kinds)}"] = drive(regions=kinds)
    for pixels in (1, 2, 4):
        rows[f"regions shifted by up to {pixels} px"] = lambda case, pixels=pixels: drive()(jittered(case, pixels))
    for kind in REGION_KINDS:
        rows[f"{kind} hidden"] = lambda case, kind=kind: drive()(occluded(case, kind))
    names = animator.backend.config.guidance
    scales = sampling.scales(names)
    for i, name in enumerate(animator.backend.config.guidance_for(())):  # short cases have no history
        for value in (0.5, 1.0, 1.5, 2.0, 2.5):
            changed = replace(sampling, guidance_scale=(*scales[:i], value, *scales[i + 1:]))
            rows[f"{name} scale {value:g}"] = drive(sampling=changed)
    return rows
