"""The synthetic transfer benchmark: cross-identity transfers with an exact, rendered answer.

A case shows person A with the attribute of person B in the motion of person C. Real people have no exact
answer for this. Self-reconstruction scores do not measure transfer: in the ablations of arXiv 2509.04434,
unmasked references reconstruct best and fail to transfer.

Models that are driven by keypoints get those of the answer: A's own face in C's motion. Retargeting is thus exact, and
the benchmark measures only the model. Models that are driven by pixels see C.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Sampling
from durian_jax.evaluation import metrics
from durian_jax.faces.clip import Clip
from durian_jax.faces.fill_region import LAYERS, dilate, margin_at
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.faces.warp import align, keypoint_similarity, warp_image
from durian_jax.families import get_family
from durian_jax.inference.family import motion_batch
from durian_jax.inference.generate import generate
from durian_jax.progress import progress_bar
from durian_jax.synthetic import render, sample_motion, sample_person

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
        attributes: kind and photo (of B) of each attribute to transfer.
        driving: T frames of C.
        truth: T frames of A with B's attributes in C's motion.
        removed: (T, H, W) bool, pixels of the truth where A's own attributes of these kinds would be seen; (0,) if
            unknown.
    """

    portrait: Clip
    attributes: tuple[tuple[str, Clip], ...]
    driving: Clip
    truth: Clip
    removed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def attribute_region(self) -> np.ndarray:
        """Return (T, H, W) bool: pixels of the truth that show the attributes."""
        return np.logical_or.reduce([self.truth.mask(kind) for kind, _ in self.attributes])


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
    answer, attributes = portrait_person, []
    for number, kind in enumerate(kinds, start=2):
        donor = sample_person(split, first + number, require=(kind,))
        answer = answer.wear(**{kind: donor})
        # A hat would cover part of the attribute in the reference.
        shown = donor if kind == "hat" else donor.without("hat")
        attributes.append((kind, render(shown, sample_motion(split, first + number, 1), size=size)))
    motion = sample_motion(split, first + 1, frames)
    before, truth = render(portrait_person, motion, size=size), render(answer, motion, size=size)
    removed = [before.mask(kind) & ~truth.mask(kind) for kind in kinds]
    return TransferCase(
        portrait=render(portrait_person, sample_motion(split, first, 1), size=size),
        attributes=tuple(attributes),
        driving=render(driver, motion, size=size),
        truth=truth, removed=np.logical_or.reduce(removed))


def paste(case: TransferCase) -> np.ndarray:
    """Return the paste baseline, (H, W, 3) uint8: attribute pixels moved onto the portrait by keypoint similarity."""
    image = case.portrait.frames[0]
    for kind, donor in case.attributes:
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
    everywhere, frames = np.ones(old.shape, bool), []
    for points in case.truth.keypoints:
        image, seen = align(bare, everywhere, portrait.keypoints[0], points)
        image = np.where(seen[..., None], image, bare)  # beyond the photo's edges
        for kind in sorted(kinds, key=LAYERS.index):
            donor = dict(case.attributes)[kind]
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
    """

    summary: dict[str, dict]
    scores: dict[str, list[dict[str, float]]]
    examples: dict[str, list[tuple[TransferCase, np.ndarray]]]


# Makes a case only when it is needed.
CaseMaker = Callable[[], TransferCase]


def transfer_cases(count: int, frames: int = 1, size: int = 128, split: str = SPLIT) -> dict[str, list[CaseMaker]]:
    """Return the benchmark: kind -> its first `count` cases; see `transfer_case`."""
    return {kind: [partial(transfer_case, kind, index, frames, size, split) for index in range(count)]
            for kind in ATTRIBUTE_KINDS}


def run(checkpoint: Checkpoint, cases: Mapping[str, Sequence[CaseMaker]], sampling: Sampling | None = None, *,
        keep: int = 0, batch_size: int = 16, progress: bool = True) -> Benchmark:
    """Sample every case with a checkpoint and score the results.

    Args:
        cases: kind -> cases, all of equal length and of the checkpoint's size.
        sampling: steps, guidance and seed.
        keep: number of examples per kind to return.
        batch_size: cases per call of the sampler.
        progress: show a progress bar.
    """
    todo = [(kind, index, make) for kind, makers in cases.items() for index, make in enumerate(makers)]
    batch_size = min(batch_size, len(todo))
    scores = {kind: [] for kind in cases}
    examples = {kind: [] for kind in cases}
    with progress_bar(total=len(todo), desc="transfers", unit="case", disable=not progress) as bar:
        for start in range(0, len(todo), batch_size):
            group = todo[start:start + batch_size]
            questions = [make() for _, _, make in group]
            # All batches have the same size, so that the sampler is compiled once.
            full = questions + questions[:1] * (batch_size - len(questions))
            results = sample(checkpoint, full, sampling)
            for (kind, index, _), case, result in zip(group, questions, results, strict=False):
                scores[kind].append(score(case, result))
                if index < keep:
                    examples[kind].append((case, result))
            bar.update(len(group))
    return Benchmark(summarize(scores), scores, examples)


def summarize(scores: dict[str, list[dict[str, float]]]) -> dict[str, dict]:
    """Compute `Benchmark.summary` from `Benchmark.scores`."""
    means = {kind: {key: metrics.mean_of_cases([case[key] for case in cases]) for key in SUMMARY_KEYS}
             for kind, cases in scores.items()}
    means["mean"] = {key: metrics.mean_of_means([means[kind][key] for kind in scores])
                     for key in SUMMARY_KEYS}
    counts = {kind: len(cases) for kind, cases in scores.items()}
    counts["mean"] = sum(counts.values())
    return {kind: {"cases": counts[kind],
                   **{key: mean.value for key, mean in row.items()},
                   **{f"{key}_ci95": mean.interval for key, mean in row.items()}}
            for kind, row in means.items()}
