"""Pictures of the best and the worst cases of an evaluation, for `durian compare`. Imports no JAX.

T frames, H x W pixels. Each case has three PNG files: its inputs side by side, the truth's frames, and the result's
frames above their difference from the truth.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from durian_jax.inference.references import with_photos
from durian_jax.video import write_image

if TYPE_CHECKING:
    from durian_jax.evaluation.transfer import TransferCase

PARTS = ("inputs", "truth", "result")
# A strip shows at most this number of frames, evenly spaced.
_FRAMES = 8
# Factor of the shown difference.
GAIN = 4


class Example(NamedTuple):
    """A case with its result (T, H, W, 3) uint8 and the score that ranks it."""

    value: float
    index: int
    case: "TransferCase"
    result: np.ndarray


class Extremes:
    """The `count` worst and the `count` best cases of a row, by a score; NaN is worst.

    Args:
        count: 0 keeps none.
    """

    def __init__(self, count: int):
        self._count = count
        self._kept: list[Example] = []

    def add(self, example: Example) -> None:
        """Take a case; forget the one that is now neither among the worst nor among the best."""
        self._kept.append(example)
        self._kept.sort(key=lambda kept: (not np.isnan(kept.value), kept.value, kept.index))
        if len(self._kept) > 2 * self._count:
            del self._kept[self._count]

    def __iter__(self):
        return iter(sorted(self._kept, key=lambda kept: kept.index))


def example_file(section: str, row: str, index: int, part: str) -> str:
    """Name of the file with one of `PARTS` of a case; letters, digits and "_" only, whatever the row's name."""
    place = "_".join(re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")[:60] for name in (section, row))
    return f"{place}_{index:04d}_{part}.png"


def write_examples(folder: Path, section: str, rows: Mapping[str, Sequence[Example]]) -> dict[str, list[int]]:
    """Write the pictures of some cases; return row -> numbers of its cases.

    Args:
        folder: exists, or is created.
        section: name of the benchmark or suite.
        rows: row -> its cases.
    """
    for row, examples in rows.items():
        for example in examples:
            for part, picture in zip(PARTS, strips(example.case, example.result), strict=True):
                write_image(folder / example_file(section, row, example.index, part), picture)
    return {row: [example.index for example in examples] for row, examples in rows.items()}


def strips(case: "TransferCase", result: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pictures of `PARTS`, uint8.

    inputs: portrait, attribute photos and the driver's first frame. truth: frames from left to right. result: the same
    of the result, and below them |result - truth|, times `GAIN`.
    """
    truth = case.truth.frames
    shown = np.unique(np.linspace(0, len(truth) - 1, _FRAMES).round().astype(int))
    difference = np.abs(result[shown].astype(np.int16) - truth[shown])
    donors = [photo.frames[0] for _, photo in with_photos(case.attributes)]
    pictures = [case.portrait.frames[0], *donors, case.driving.frames[0]]
    return (np.concatenate(pictures, 1), np.concatenate(truth[shown], 1),
            np.concatenate([np.concatenate(result[shown], 1),
                            np.concatenate(np.minimum(GAIN * difference, 255).astype(np.uint8), 1)]))
