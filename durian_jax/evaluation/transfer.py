"""The synthetic transfer benchmark: cross-identity transfers with an exact, rendered answer.

A case shows person A with the attribute of person B in the motion of person C. Real people have no exact
answer for this. Self-reconstruction scores do not measure transfer: in the ablations of arXiv 2509.04434,
unmasked references reconstruct best and fail to transfer.

Models that are driven by keypoints get those of the answer: A's own face in C's motion. Retargeting is thus exact, and
the benchmark measures only the model. Models that are driven by pixels see C.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import cv2
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Sampling
from durian_jax.evaluation import metrics
from durian_jax.evaluation.examples import Example, Extremes
from durian_jax.faces.clip import Clip
from durian_jax.faces.fill_region import LAYERS, dilate, margin_at
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.faces.warp import align, keypoint_similarity, warp_image
from durian_jax.families import get_family
from durian_jax.inference.family import motion_batch
from durian_jax.inference.generate import generate
from durian_jax.inference.references import with_photos
from durian_jax.progress import progress_bar
from durian_jax.synthetic import Motion, Person, render, sample_motion, sample_person

SPLIT = "benchmark"
# Number of people and motions that are reserved for one case, so that no two cases share any.
_BLOCK = 8
# Blocks per case index: one for each kind alone, then one for each first kind of a composition.
_BLOCKS = 2 * len(ATTRIBUTE_KINDS)
# A pixel stands still far from motion beyond this distance, in pixels at 128 px.
_FAR = 6
_METRICS = ("l1", "psnr", "ssim", "psnr_region", "ssim_region", "psnr_removed", "sharpness", "edge_gradient", "still",
            "still_far", "tde")
_BASELINE_METRICS = ("psnr", "psnr_region")
SUMMARY_KEYS = (*_METRICS, *(f"{baseline}_{name}" for baseline in ("unchanged", "paste", "paste_moving")
                             for name in _BASELINE_METRICS))


@dataclass(frozen=True)
class TransferCase:
    """The inputs of one transfer and its exact answer.

    Attributes:
        portrait: photo of A.
        attributes: kind and photo (of B) of each attribute to transfer; None takes A's own away.
        driving: T frames of C.
        truth: T frames of A with B's attributes in C's motion.
        removed: (T, H, W) bool, pixels of the truth where A's own attributes of these kinds would be seen; (0,) if
            unknown.
    """

    portrait: Clip
    attributes: tuple[tuple[str, Clip | None], ...]
    driving: Clip
    truth: Clip
    removed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def attribute_region(self) -> np.ndarray:
        """Return (T, H, W) bool: pixels of the truth that show the attributes, or where those taken away were."""
        parts = [self.truth.mask(kind) for kind, _ in with_photos(self.attributes)]
        if len(parts) < len(self.attributes):
            parts.append(self.removed)
        return np.logical_or.reduce(parts)


def transfer_case(kinds: str | Sequence[str], index: int, frames: int = 1, size: int = 128, split: str = SPLIT
                  ) -> TransferCase:
    """Render case `index` of the benchmark for one attribute kind, or for several in one pass.

    Args:
        kinds: attribute kinds to transfer; each kind comes from another person.
        index: number of the case, >= 0.
        frames: T.
        size: H = W in pixels.
        split: of the procedural people; "validation" to choose settings.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    block = _BLOCKS * index + ATTRIBUTE_KINDS.index(kinds[0]) + (len(ATTRIBUTE_KINDS) if len(kinds) > 1 else 0)
    first = block * _BLOCK
    portrait_person, driver = sample_person(split, first), sample_person(split, first + 1)
    if {"hair", "hat"} & set(kinds):
        # The portrait's own hat would cover the transferred hair, and a person cannot wear two hats.
        portrait_person = portrait_person.without("hat")
    donors = [(kind, sample_person(split, first + number, require=(kind,))) for number, kind in enumerate(kinds, 2)]
    return render_case(
        portrait_person, donors, driver, photo=sample_motion(split, first, 1),
        donor_photos=[sample_motion(split, first + number, 1) for number in range(2, 2 + len(kinds))],
        motion=sample_motion(split, first + 1, frames), size=size)


def render_case(person: Person, donors: Sequence[tuple[str, Person]], driver: Person, *, photo: Motion,
                donor_photos: Sequence[Motion], motion: Motion, size: int) -> TransferCase:
    """Render a transfer and its exact answer.

    Args:
        person: A, as the portrait shows A.
        donors: kind of each attribute, and the person who gives it.
        driver: C.
        photo: pose of the portrait, one frame.
        donor_photos: pose of each donor's photo, one frame each.
        motion: T frames, C's.
        size: H = W in pixels.
    """
    answer, attributes = person, []
    for (kind, donor), pose in zip(donors, donor_photos, strict=True):
        answer = answer.wear(**{kind: donor})
        # A hat would cover part of the attribute in the reference.
        shown = donor if kind == "hat" else donor.without("hat")
        attributes.append((kind, render(shown, pose, size=size)))
    before, truth = render(person, motion, size=size), render(answer, motion, size=size)
    removed = [before.mask(kind) & ~truth.mask(kind) for kind, _ in donors]
    return TransferCase(portrait=render(person, photo, size=size), attributes=tuple(attributes),
                        driving=render(driver, motion, size=size), truth=truth,
                        removed=np.logical_or.reduce(removed))


def paste(case: TransferCase) -> np.ndarray:
    """Return the paste baseline, (H, W, 3) uint8: attribute pixels moved onto the portrait by keypoint similarity."""
    image = case.portrait.frames[0]
    for kind, donor in with_photos(case.attributes):
        matrix = keypoint_similarity(donor.keypoints[0], case.portrait.keypoints[0], *image.shape[:2])
        cover = warp_image(donor.mask(kind)[0].astype(np.float32), matrix)[..., None]
        image = np.rint(image * (1 - cover) + warp_image(donor.frames[0], matrix) * cover).astype(np.uint8)
    return image


def moving_paste(case: TransferCase) -> np.ndarray:
    """Return the paste baseline that moves, (T, H, W, 3) uint8.

    The old attributes are painted over in the portrait (Telea 2004). Portrait and attributes are then warped to the
    keypoints of every frame of the truth (`faces.warp.align`). It knows the exact motion but has no model.
    """
    portrait, kinds = case.portrait, [kind for kind, _ in case.attributes]
    old = np.logical_or.reduce([portrait.mask(kind)[0] for kind in kinds])
    radius = margin_at(old.shape[0], 3)
    bare = cv2.inpaint(portrait.frames[0], dilate(old, radius).astype(np.uint8), radius, cv2.INPAINT_TELEA)
    everywhere, frames, donors = np.ones(old.shape, bool), [], dict(with_photos(case.attributes))
    for points in case.truth.keypoints:
        image, seen = align(bare, everywhere, portrait.keypoints[0], points)
        image = np.where(seen[..., None], image, bare)  # beyond the photo's edges
        for kind in sorted(donors, key=LAYERS.index):
            donor = donors[kind]
            moved, mask = align(donor.frames[0], donor.mask(kind)[0], donor.keypoints[0], points)
            image = np.where(mask[..., None], moved, image)
        frames.append(image)
    return np.stack(frames)


def score(case: TransferCase, result: np.ndarray) -> dict[str, float]:
    """Compute all `SUMMARY_KEYS` of one case; result is (T, H, W, 3) uint8."""
    truth, region = case.truth.frames, case.attribute_region()
    removed = case.removed if case.removed.size else np.zeros(region.shape, bool)
    scores = {"l1": metrics.l1(result, truth),
              "psnr": metrics.psnr(result, truth), "ssim": metrics.ssim(result, truth),
              "psnr_region": metrics.psnr(result, truth, region),
              "ssim_region": metrics.ssim(result, truth, region),
              "psnr_removed": metrics.psnr(result, truth, removed),
              "sharpness": metrics.sharpness(result, truth),
              "edge_gradient": metrics.edge_gradient(result, truth),
              "still": metrics.still_change(result, truth),
              "still_far": metrics.still_change(result, truth, _FAR * truth.shape[1] / 128),
              "tde": metrics.temporal_error(result, truth)}
    for name, video in (("unchanged", np.broadcast_to(case.portrait.frames[0], truth.shape)),
                        ("paste", np.broadcast_to(paste(case), truth.shape)), ("paste_moving", moving_paste(case))):
        scores[f"{name}_psnr"] = metrics.psnr(video, truth)
        scores[f"{name}_psnr_region"] = metrics.psnr(video, truth, region)
    return scores


def sample(checkpoint: Checkpoint, cases: Sequence[TransferCase], sampling: Sampling | None = None, *,
           slots: int | None = None, blend: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """Sample the model's results for cases of equal length as one batch; return (B, T, H, W, 3) uint8.

    Args:
        sampling: steps, guidance and seed.
        slots: A of the batch. Empty slots do not change the results.
        blend: weights of each case's attributes, to interpolate instead of composing.
    """
    family = get_family(checkpoint.config.family).load("inference")
    batch = family.transfer_batch(checkpoint, [(case.portrait, case.attributes) for case in cases], slots)
    if blend is not None:
        weights, frames = np.asarray(blend, np.float32)[:, None], len(cases[0].truth)
        batch["attribute_weights"] = np.broadcast_to(weights, (len(weights), frames, weights.shape[2]))
    batch |= motion_batch(checkpoint.config, batch, [
        (case.portrait, case.attributes, case.driving, case.truth.keypoints) for case in cases])
    return generate(checkpoint, batch, sampling)


@dataclass(frozen=True)
class Benchmark:
    """The result of `run`.

    Attributes:
        summary: kind (and "mean" over the kinds) -> `cases`, all `SUMMARY_KEYS`, and for each key
            `<key>_ci95`: (low, high) of the mean's 95 % confidence interval.
        scores: kind -> all `SUMMARY_KEYS` of each case, in order.
        examples: kind -> the first cases with the model's results (T, H, W, 3).
        extremes: kind -> the cases with the lowest and the highest PSNR in the region, in order.
    """

    summary: dict[str, dict]
    scores: dict[str, list[dict[str, float]]]
    examples: dict[str, list[tuple[TransferCase, np.ndarray]]]
    extremes: dict[str, list[Example]] = field(default_factory=dict)


class Gathered:
    """Scores and examples of cases, as they are sampled.

    Args:
        rows: names of the rows of the table.
        keep: number of the first cases per row to keep as examples.
        extremes: number of the worst, and of the best, cases per row to keep.
    """

    def __init__(self, rows: Iterable[str], keep: int = 0, extremes: int = 0):
        self.scores: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
        self._keep = keep
        self._examples: dict[str, list[tuple[TransferCase, np.ndarray]]] = {row: [] for row in self.scores}
        self._extremes = {row: Extremes(extremes) for row in self.scores}

    def add(self, row: str, case: TransferCase, result: np.ndarray, own: Mapping[str, float] | None = None) -> None:
        """Score the next case of a row; `own` holds further scores of it."""
        index = len(self.scores[row])
        scores = score(case, result) | dict(own or {})
        self.scores[row].append(scores)
        self._extremes[row].add(Example(scores["psnr_region"], index, case, result))
        if index < self._keep:
            self._examples[row].append((case, result))

    def benchmark(self, summary: dict[str, dict]) -> Benchmark:
        """Return everything with the summary."""
        return Benchmark(summary, self.scores, self._examples, {row: [*kept] for row, kept in self._extremes.items()})


# Makes a case only when it is needed.
CaseMaker = Callable[[], TransferCase]


def transfer_cases(count: int, frames: int = 1, size: int = 128, split: str = SPLIT) -> dict[str, list[CaseMaker]]:
    """Return the benchmark: kind -> its first `count` cases; see `transfer_case`."""
    return {kind: [partial(transfer_case, kind, index, frames, size, split) for index in range(count)]
            for kind in ATTRIBUTE_KINDS}


def sampled(checkpoint: Checkpoint, cases: Iterable[TransferCase], sampling: Sampling | None = None, *,
            slots: int | None = None, batch_size: int = 16) -> Iterator[tuple[TransferCase, np.ndarray]]:
    """Yield every case with its result (T, H, W, 3) uint8; cases are taken as they are needed.

    Args:
        cases: of equal length and of the checkpoint's size.
        sampling: steps, guidance and seed.
        slots: A of the batches; None: the most attributes that a case of the batch has.
        batch_size: cases per call of the sampler. All batches have this size, so that it is compiled once.
    """
    left = iter(cases)
    while group := list(islice(left, batch_size)):
        results = sample(checkpoint, group + group[:1] * (batch_size - len(group)), sampling, slots=slots)
        yield from zip(group, results, strict=False)


def run(checkpoint: Checkpoint, cases: Mapping[str, Sequence[CaseMaker]], sampling: Sampling | None = None, *,
        keep: int = 0, extremes: int = 0, batch_size: int = 16, progress: bool = True) -> Benchmark:
    """Sample every case with a checkpoint and score the results.

    Args:
        cases: kind -> cases, all of equal length and of the checkpoint's size.
        sampling: steps, guidance and seed.
        keep: number of examples per kind to return.
        extremes: number of the worst, and of the best, cases per kind to return.
        batch_size: cases per call of the sampler.
        progress: show a progress bar.
    """
    todo = [(kind, make) for kind, makers in cases.items() for make in makers]
    gathered = Gathered(cases, keep, extremes)
    results = sampled(checkpoint, (make() for _, make in todo), sampling, batch_size=min(batch_size, len(todo)))
    with progress_bar(total=len(todo), desc="transfers", unit="case", disable=not progress) as bar:
        for (kind, _), (case, result) in zip(todo, results, strict=True):
            gathered.add(kind, case, result)
            bar.update()
    return gathered.benchmark(summarize(gathered.scores))


def summarize(scores: Mapping[str, Sequence[Mapping[str, float]]], keys: Sequence[str] = SUMMARY_KEYS,
              same_people: bool = False) -> dict[str, dict]:
    """Compute `Benchmark.summary` from `Benchmark.scores`.

    Args:
        scores: row -> scores of each case.
        keys: of the scores.
        same_people: case n of every row shows the same people. The interval of "mean" is then that of the means of
            each case over the rows; otherwise rows are independent.
    """
    values = {row: {key: [case[key] for case in cases] for key in keys} for row, cases in scores.items()}
    means = {row: {key: metrics.mean_of_cases(values[row][key]) for key in keys} for row in scores}
    means["mean"] = {key: metrics.mean_of_rows([values[row][key] for row in scores], same_people) for key in keys}
    counts = {row: len(cases) for row, cases in scores.items()}
    counts["mean"] = sum(counts.values())
    return {row: {"cases": counts[row],
                  **{key: mean.value for key, mean in columns.items()},
                  **{f"{key}_ci95": mean.interval for key, mean in columns.items()}}
            for row, columns in means.items()}
