"""Run suites on a model: sample all questions, score them, and compare rows of equal people."""

from collections.abc import Iterator, Sequence

import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Sampling
from durian_jax.evaluation.columns import SUITES
from durian_jax.evaluation.suites.compositions import compositions
from durian_jax.evaluation.suites.conditions import CONDITIONS
from durian_jax.evaluation.suites.long_video import LONG, seam_and_drift
from durian_jax.evaluation.suites.question import Question, QuestionMaker, Suite
from durian_jax.evaluation.suites.removal import REMOVAL
from durian_jax.evaluation.transfer import SUMMARY_KEYS, Benchmark, Gathered, sampled, summarize
from durian_jax.families import get_family
from durian_jax.inference.animator import Animator
from durian_jax.inference.family import Job
from durian_jax.progress import progress_bar

BUILDERS: dict[str, Suite] = {**CONDITIONS, "pairs": compositions("pairs", 2), "triples": compositions("triples", 3),
                              "long": LONG, "removal": REMOVAL}


def run_suite(checkpoint: Checkpoint, name: str, cases: int, frames: int, split: str,
              sampling: Sampling | None = None, *, keep: int = 0, extremes: int = 0, batch_size: int = 16,
              progress: bool = True) -> Benchmark:
    """Sample every case of a suite with a checkpoint and score the results.

    Args:
        name: of the suite, one of `columns.SUITES`.
        cases: per row.
        frames: per case; a suite may take a multiple (`Suite.times`).
        split: of the procedural people.
        sampling, keep, extremes, batch_size, progress: see `evaluation.transfer.run`.

    Returns:
        The scores, with rows instead of kinds. They hold the suite's own columns too.
    """
    suite = BUILDERS[name]
    rows = suite.rows(cases, frames * suite.times, checkpoint.config.image_size, split)
    todo = [(row, make) for row, makers in rows.items() for make in makers]
    gathered = Gathered(rows, keep, extremes)
    answers = (_animated(checkpoint, [make for _, make in todo], sampling) if suite.times > 1 else
               _sampled(checkpoint, [make for _, make in todo], sampling, batch_size))
    with progress_bar(total=len(todo), desc=name, unit="case", disable=not progress) as bar:
        for (row, _), (question, result, own) in zip(todo, answers, strict=True):
            gathered.add(row, question.case, result, own)
            bar.update()
    if suite.reference is not None:
        before = gathered.scores[suite.reference]
        for row, scores in gathered.scores.items():
            for exact, here in zip(before, scores, strict=True):
                here["drop"] = exact["psnr_region"] - here["psnr_region"] if row != suite.reference else float("nan")
    keys = (*SUMMARY_KEYS, *(column.key for column in SUITES[name].columns))
    return gathered.benchmark(summarize(gathered.scores, keys, suite.reference is not None))


def _sampled(checkpoint: Checkpoint, makers: Sequence[QuestionMaker], sampling: Sampling | None, batch_size: int
             ) -> Iterator[tuple[Question, np.ndarray, dict[str, float]]]:
    """Yield every question with its result and its own scores."""
    asked: list[Question] = []
    first = makers[0]()

    def cases():
        for number, make in enumerate(makers):
            asked.append(first if number == 0 else make())
            yield from (asked[-1].case, *asked[-1].alone)

    count = len(makers) * (1 + len(first.alone))
    results = (result for _, result in sampled(checkpoint, cases(), sampling, slots=len(first.case.attributes),
                                               batch_size=min(batch_size, count)))
    for result in results:
        question = asked.pop(0)
        alone = [next(results) for _ in question.alone]
        yield question, result, question.measure(result, alone)


def _animated(checkpoint: Checkpoint, makers: Sequence[QuestionMaker], sampling: Sampling | None
              ) -> Iterator[tuple[Question, np.ndarray, dict[str, float]]]:
    """Do as `_sampled`, one long video after the other, through the windows or segments of the animator."""
    animator = Animator(checkpoint)
    family = get_family(checkpoint.config.family).load("inference")
    for make in makers:
        question = make()
        case = question.case
        driving = case.truth.keypoints if family.DRIVEN_BY == "keypoints" else case.driving
        result = animator.animate(case.portrait, case.attributes, driving, sampling=sampling, progress=False,
                                  **family.IN_PLACE)
        job: Job = family.make_job(animator.backend, case.portrait, case.attributes, driving, **family.IN_PLACE)
        yield question, result, seam_and_drift(result, case.truth.frames, job.starts)
