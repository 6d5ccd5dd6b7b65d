"""Read the JSON files of `durian evaluate`, and refuse files that do not fit each other. Imports no JAX."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.evaluation.examples import PARTS, example_file
from durian_jax.evaluation.metrics import Mean
from durian_jax.files import read_json

_ADVICE = "expected a file that durian evaluate --json has written; evaluate again"
# Settings that must be equal, as they say which cases were asked.
_SAME = ("benchmark", "suites", "cases", "frames", "split", "size", "long_cases", "long_frames")
# Beyond this a number is no score.
_LARGEST = 1e12


@dataclass(frozen=True)
class Scores:
    """Scores of a benchmark or suite.

    Attributes:
        summary: row -> key -> mean with its interval.
        cases: row -> key -> score of each case, (n,) float64; NaN where it is not defined.
        same_people: case n of every row shows the same people.
        pictures: row -> cases that have pictures.
    """

    summary: dict[str, dict[str, Mean]]
    cases: dict[str, dict[str, np.ndarray]]
    same_people: bool = False
    pictures: dict[str, list[int]] = field(default_factory=dict)

    def count(self, row: str) -> int:
        """Number of cases of a row."""
        return max((len(values) for values in self.cases[row].values()), default=0)

    @property
    def main_row(self) -> str:
        """The row "mean", or the only row of a benchmark without kinds."""
        return "mean" if "mean" in self.summary else next(iter(self.summary))


@dataclass(frozen=True)
class Evaluation:
    """A file of `durian evaluate`.

    Attributes:
        path: of the file.
        settings: name -> value.
        seconds: that it took; NaN if unknown.
        versions: of the software.
        sections: name of the benchmark, or of each suite -> its scores.
        folder: of the pictures; None: there are none.
    """

    path: Path
    settings: dict[str, Any]
    seconds: float
    versions: dict[str, Any]
    sections: dict[str, Scores]
    folder: Path | None = None

    def picture(self, section: str, row: str, index: int, part: str) -> Path:
        """Path of one of the pictures of a case, see `examples.PARTS`.

        Raises:
            InputError: it does not exist.
        """
        assert self.folder is not None
        path = self.folder / example_file(section, row, index, part)
        if not path.is_file():
            raise InputError(f"{cut(str(path))}: expected a picture that {self.path} lists, found none; copy the "
                             "folder of --examples along, or leave pictures out with --pictures 0")
        return path


def read_evaluation(path: str | Path) -> Evaluation:
    """Read a file of `durian evaluate --json`.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    path = Path(path)
    content = read_json(path, _ADVICE)
    settings = _object(path, content, "settings")
    name = settings.get("benchmark", "synthetic")  # version 0.1 had no other
    if not isinstance(name, str):
        raise _unfit(path, "settings.benchmark", name)
    parts = _object(path, content, "suites") if name == "suites" else {name: content}
    if not parts:
        raise _unfit(path, "suites", parts)
    examples = _object(path, content, "examples") if "examples" in content else {}
    folder = examples.get("folder")
    if examples and not isinstance(folder, str):
        raise _unfit(path, "examples.folder", folder)
    kept = _object(path, examples, "cases") if examples else {}
    sections = {}
    for section, part in parts.items():
        if not isinstance(part, dict):
            raise _unfit(path, section, part)
        cases = _cases(path, part.get("scores"))
        sections[section] = Scores(_summary(path, part.get("summary"), set(cases)), cases,
                                   part.get("same_people") is True, _pictures(path, kept.get(section, {}), cases))
    versions = content.get("versions")
    return Evaluation(path, settings, _number(path, "seconds", content.get("seconds")),
                      versions if isinstance(versions, dict) else {}, sections,
                      path.parent / folder if isinstance(folder, str) else None)


def _unfit(path: Path, where: str, value: Any) -> InputError:
    return InputError(f"{cut(str(path))}, {cut(where, 80)}: found {shown(value)}; {_ADVICE}")


def _object(path: Path, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object of fields."""
    if not isinstance(values.get(name), dict):
        raise _unfit(path, name, values.get(name))
    return values[name]


def _number(path: Path, where: str, value: Any) -> float:
    """A score; null is NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise _unfit(path, where, value)
    return float(value)


def _cases(path: Path, scores: Any) -> dict[str, dict[str, np.ndarray]]:
    """`Scores.cases`; a benchmark without rows has one, "model"."""
    rows = {"model": scores} if isinstance(scores, list) else scores
    if not isinstance(rows, dict) or not rows:
        raise _unfit(path, "scores", scores)
    found = {}
    for row, cases in rows.items():
        if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
            raise _unfit(path, f"scores of {row}", cases)
        keys = dict.fromkeys(key for case in cases for key in case)
        found[row] = {key: np.array([_number(path, f"{key} of {row}", case.get(key)) for case in cases])
                      for key in keys}
    return found


def _summary(path: Path, summary: Any, rows: set[str]) -> dict[str, dict[str, Mean]]:
    """`Scores.summary`."""
    if isinstance(summary, dict) and rows == {"model"}:
        summary = {"model": summary}
    if not isinstance(summary, dict) or not rows <= {*summary} or {*summary} - rows - {"mean"}:
        raise _unfit(path, "summary", summary)
    found: dict[str, dict[str, Mean]] = {}
    for row, values in summary.items():
        if not isinstance(values, dict):
            raise _unfit(path, f"summary of {row}", values)
        found[row] = {}
        for key in [key for key in values if f"{key}_ci95" in values]:
            ends = values[f"{key}_ci95"]
            if not isinstance(ends, list) or len(ends) != 2:
                raise _unfit(path, f"{key}_ci95 of {row}", ends)
            low, high = (_number(path, f"{key}_ci95 of {row}", end) for end in ends)
            found[row][key] = Mean(_number(path, f"{key} of {row}", values[key]), (high - low) / 2, 0)
    return found


def _pictures(path: Path, kept: Any, cases: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, list[int]]:
    """`Scores.pictures`."""
    if not isinstance(kept, dict):
        raise _unfit(path, "examples.cases", kept)
    for row, numbers in kept.items():
        count = len(next(iter(cases[row].values()), ())) if row in cases else 0
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < count for n in numbers):
            raise _unfit(path, f"examples.cases of {row}", numbers)
    return kept


def check_same_cases(evaluations: Sequence[Evaluation]) -> None:
    """Refuse evaluations that did not ask the same.

    Raises:
        InputError: says what differs.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        for name in _SAME:
            ours, theirs = first.settings.get(name), other.settings.get(name)
            if name == "split":  # version 0.1 had no other
                ours, theirs = ours or "benchmark", theirs or "benchmark"
            if ours != theirs:
                raise _different(first, other, name, shown(ours), shown(theirs))
        if {*first.sections} != {*other.sections}:
            raise _different(first, other, "suites", listed([*first.sections]), listed([*other.sections]))
        for section, scores in first.sections.items():
            ours, theirs = ({row: found.count(row) for row in found.cases}
                            for found in (scores, other.sections[section]))
            if ours != theirs:
                raise _different(first, other, f"cases of {section}", shown(ours), shown(theirs))
            if scores.same_people and len({*ours.values()}) > 1:
                raise _unfit(first.path, f"scores of {section}, whose rows show the same people", ours)


def _different(first: Evaluation, other: Evaluation, what: str, ours: str, theirs: str) -> InputError:
    return InputError(f"{cut(str(other.path))}: expected {cut(what, 80)} {ours}, as {cut(str(first.path))} has, found "
                      f"{theirs}; evaluate both with equal --benchmark or --suite, --cases, --frames and --split, at "
                      "one picture size")


def check_pictures(evaluations: Sequence[Evaluation]) -> None:
    """Refuse evaluations whose pictures are not where the file says.

    Raises:
        InputError: see `Evaluation.picture`.
    """
    for one in evaluations:
        for section, scores in one.sections.items():
            for row, numbers in scores.pictures.items():
                for index in numbers:
                    for part in PARTS:
                        one.picture(section, row, index, part)
