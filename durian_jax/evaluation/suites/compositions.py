"""Pairs and triples: several attributes at once, and each of them alone on the same person.

T frames, H x W pixels.
"""

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np

from durian_jax.evaluation import metrics
from durian_jax.evaluation.suites.question import Question, Suite, first_person
from durian_jax.evaluation.transfer import TransferCase, render_case
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic import sample_motion, sample_person


def composition(suite: str, row: int, kinds: Sequence[str], index: int, frames: int, size: int, split: str) -> Question:
    """Render a transfer of several attributes, each of another person, and the transfer of each alone."""
    first = first_person(suite, index, row)
    person = sample_person(split, first)
    if {"hair", "hat"} & {*kinds}:
        person = person.without("hat")  # as in the benchmark
    donors = [(kind, sample_person(split, first + number, require=(kind,))) for number, kind in enumerate(kinds, 2)]
    poses = [sample_motion(split, first + number, 1) for number in range(2, 2 + len(kinds))]
    make = lambda chosen: render_case(
        person, [donors[i] for i in chosen], sample_person(split, first + 1), photo=sample_motion(split, first, 1),
        donor_photos=[poses[i] for i in chosen], motion=sample_motion(split, first + 1, frames), size=size)
    together, alone = make(range(len(kinds))), tuple(make([i]) for i in range(len(kinds)))
    return Question(together, alone, partial(drops, together, alone))


def drops(together: TransferCase, alone: Sequence[TransferCase], result: np.ndarray, results: Sequence[np.ndarray]
          ) -> dict[str, float]:
    """Compare the region of every attribute in a composition with that in its single transfer.

    Only pixels that show the attribute in both truths count: a hat flattens the hair under it.

    Args:
        together, result: the composition and its result (T, H, W, 3) uint8.
        alone, results: the same of each attribute alone, in the order of the composition.

    Returns:
        `together_N`, `alone_N` (PSNR in dB) and `drop_N` of attribute N from 1, and the mean `drop`.
    """
    scores: dict[str, float] = {}
    for number, ((kind, _), case, single) in enumerate(zip(together.attributes, alone, results, strict=True), 1):
        both = together.truth.mask(kind) & case.truth.mask(kind)
        scores[f"together_{number}"] = metrics.psnr(result, together.truth.frames, both)
        scores[f"alone_{number}"] = metrics.psnr(single, case.truth.frames, both)
        scores[f"drop_{number}"] = scores[f"alone_{number}"] - scores[f"together_{number}"]
    found = [scores[f"drop_{number}"] for number in range(1, len(alone) + 1)]
    known = [drop for drop in found if not np.isnan(drop)]
    return {"drop": float(np.mean(known)) if known else float("nan"), **scores}


def compositions(suite: str, size: int) -> Suite:
    """The suite whose rows are all sets of `size` attribute kinds."""
    def rows(count: int, frames: int, pixels: int, split: str):
        return {" + ".join(kinds): [partial(composition, suite, row, kinds, index, frames, pixels, split)
                                    for index in range(count)]
                for row, kinds in enumerate(combinations(ATTRIBUTE_KINDS, size))}

    return Suite(rows)
