"""What a suite asks: transfers whose exact answer is rendered, with people of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from durian_jax.evaluation.columns import SUITES
from durian_jax.evaluation.transfer import TransferCase, render_case
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic import Person, sample_motion, sample_person

# People of suites have numbers from here on; no case of a benchmark has them.
_FIRST = 1 << 30
_SUITE = 1 << 24  # numbers per suite
_ROWS = 16  # at most, per suite
PEOPLE = 64  # numbers per case


@dataclass(frozen=True)
class Question:
    """A case of a suite.

    Attributes:
        case: inputs and exact answer.
        alone: transfers that are sampled only to compare with.
        measure: the suite's own scores, from the result (T, H, W, 3) uint8 and from those of `alone`.
    """

    case: TransferCase
    alone: tuple[TransferCase, ...] = ()
    measure: Callable[[np.ndarray, Sequence[np.ndarray]], dict[str, float]] = lambda result, alone: {}


# Makes a question only when it is needed.
QuestionMaker = Callable[[], Question]


@dataclass(frozen=True)
class Suite:
    """Rows of questions.

    Attributes:
        rows: (cases per row, T, size in pixels, split) -> row -> its questions.
        reference: the row that others are compared with, case by case, as all rows show the same people; None: every
            row has people of its own.
        times: the videos have this many times as many frames, and the animator makes them.
    """

    rows: Callable[[int, int, int, str], Mapping[str, Sequence[QuestionMaker]]]
    reference: str | None = None
    times: int = 1


def first_person(suite: str, index: int, row: int = 0) -> int:
    """Number of the first of the `PEOPLE` people, and motions, that belong to a case."""
    return _FIRST + [*SUITES].index(suite) * _SUITE + (index * _ROWS + row) * PEOPLE


def kind_of(index: int) -> str:
    """Attribute kind of a case where rows are conditions: the kinds take turns."""
    return ATTRIBUTE_KINDS[index % len(ATTRIBUTE_KINDS)]


def one_transfer(person: Person, kind: str, donor: Person, first: int, split: str, frames: int, size: int, *,
                 driver: Person | None = None) -> TransferCase:
    """Render a transfer of one attribute, in motions of the case whose first number is `first`.

    Args:
        person: A, as the portrait shows A.
        kind, donor: the attribute, and the person who gives it.
        driver: C; None: the case's second person.
    """
    return render_case(person, [(kind, donor)], driver or sample_person(split, first + 1),
                       photo=sample_motion(split, first, 1), donor_photos=[sample_motion(split, first + 2, 1)],
                       motion=sample_motion(split, first + 1, frames), size=size)
