"""Removal: the portrait's own hair, glasses, beard or hat becomes nothing.

T frames, H x W pixels.
"""

from functools import partial

import numpy as np

from durian_jax.evaluation.suites.question import Question, Suite, first_person
from durian_jax.evaluation.transfer import TransferCase
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic import render, sample_motion, sample_person

# Where a person with and without an attribute differ by less, in grey levels, a pixel says nothing about what is left.
_DIFFERENT = 16


def removal(kind: str, index: int, frames: int, size: int, split: str) -> Question:
    """Take an attribute away from a person who wears it; the truth is the person without it."""
    first = first_person("removal", index, ATTRIBUTE_KINDS.index(kind))
    person = sample_person(split, first, require=(kind,))
    if kind == "hair":
        person = person.without("hat")  # it would cover the hair
    motion = sample_motion(split, first + 1, frames)
    before, truth = (render(one, motion, size=size) for one in (person, person.without(kind)))
    case = TransferCase(portrait=render(person, sample_motion(split, first, 1), size=size), attributes=((kind, None),),
                        driving=render(sample_person(split, first + 1), motion, size=size), truth=truth,
                        removed=before.mask(kind))
    return Question(case, measure=lambda result, alone: {"left": left_over(
        result, before.frames, truth.frames, case.removed)})


def left_over(result: np.ndarray, before: np.ndarray, truth: np.ndarray, region: np.ndarray) -> float:
    """Return the share of a region's pixels that are nearer to the old attribute than to the truth.

    Args:
        result, before, truth: (T, H, W, 3) uint8; `before` still has the attribute.
        region: (T, H, W) bool, where the attribute was.

    Returns:
        0 to 1; NaN if no pixel of the region tells the two apart.
    """
    distance = lambda one, other: np.abs(one.astype(np.int16) - other).sum(-1)
    telling = region & (distance(before, truth) >= 3 * _DIFFERENT)
    nearer = distance(result, before) < distance(result, truth)
    return float(nearer[telling].mean()) if telling.any() else float("nan")


def _rows(count: int, frames: int, size: int, split: str):
    return {kind: [partial(removal, kind, index, frames, size, split) for index in range(count)]
            for kind in ATTRIBUTE_KINDS}


REMOVAL = Suite(_rows)
