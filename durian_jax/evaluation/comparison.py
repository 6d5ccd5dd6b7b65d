"""`durian compare`: evaluations of the same cases beside each other, as one page. Imports no JAX."""

import base64
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from durian_jax.errors import InputError, cut
from durian_jax.evaluation import metrics
from durian_jax.evaluation.charts import Line, interval_chart
from durian_jax.evaluation.columns import SUITES, TABLES, Column, shown_rows, tables_of
from durian_jax.evaluation.evaluation_files import (
    Evaluation,
    Scores,
    check_pictures,
    check_same_cases,
    read_evaluation,
)
from durian_jax.evaluation.examples import GAIN
from durian_jax.evaluation.metrics import Mean
from durian_jax.files import writable_file, write_text
from durian_jax.video import read_image

MOST_FILES = 8
_RANK = "psnr_region"  # ranks cases; `psnr` if a benchmark has no regions
# Columns of the first table, which has the means of all suites.
_MAIN = (_RANK, "psnr", "ssim", "edge_gradient", "psnr_removed", "still", "tde")
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_UNKNOWN = "–"


def compare_evaluations(files: Sequence[str | Path], out: str | Path, *, pictures: int = 2) -> str:
    """Compare evaluations of the same cases; write one page without links to other files, and return a short table.

    Args:
        files: two to eight files of `durian evaluate --json`. Differences are those from the first one.
        out: page to write, .html.
        pictures: number of the worst and of the best cases per benchmark or suite that are shown, if the evaluations
            were made with `--examples`; 0: no pictures.

    Raises:
        InputError: a file is damaged, the files do not hold the same cases, pictures are missing, or the output is not
            writable.
    """
    if not 2 <= len(files) <= MOST_FILES:
        raise InputError(f"expected 2 to {MOST_FILES} files of durian evaluate --json, found {len(files)}")
    path = writable_file(out, (".html", ".htm"))
    evaluations = [read_evaluation(file) for file in files]
    check_same_cases(evaluations)
    if pictures:
        check_pictures(evaluations)
    labels = string.ascii_uppercase[:len(evaluations)]
    sections = [_section(name, evaluations, labels, pictures) for name in evaluations[0].sections]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("durian_jax.evaluation"), autoescape=True,
                                     undefined=jinja2.StrictUndefined)
    page = environment.get_template("compare.html").render(
        files=[{"label": label, "path": cut(str(one.path)), "colour": number}
               for number, (label, one) in enumerate(zip(labels, evaluations, strict=True))],
        settings=_settings(evaluations), overview=_overview(evaluations, labels), sections=sections, gain=GAIN)
    write_text(path, page)
    return "\n".join(_lines(labels, evaluations))


# --- differences --------------------------------------------------------------------------------------------------

def differences(first: Scores, other: Scores, key: str) -> dict[str, np.ndarray]:
    """Row -> score of every case in `other` minus that in `first`, (n,); NaN where one of them is not defined."""
    return {row: _column(other, row, key) - _column(first, row, key) for row in first.cases}


def _column(scores: Scores, row: str, key: str) -> np.ndarray:
    """Scores of a row's cases; NaN if the row does not have this score."""
    return scores.cases[row].get(key, np.full(scores.count(row), np.nan))


def mean_differences(first: Scores, other: Scores, key: str) -> dict[str, Mean]:
    """Row -> mean of the paired differences with its 95 % interval; "mean" if the summary has this row.

    Cases are weighted as in the summary: by `<key>_weight`, if they have it.
    """
    found = differences(first, other, key)
    means = {}
    for row, values in found.items():
        weights = first.cases[row].get(f"{key}_weight")
        means[row] = metrics.mean_of_cases(values, None if weights is None else
                                           np.maximum(np.nan_to_num(weights), 0))
    if "mean" in first.summary:
        means["mean"] = metrics.mean_of_rows([values.tolist() for values in found.values()], first.same_people)
    return means


def verdict(column: Column, difference: Mean) -> str:
    """Return "better" or "worse" if the interval of the difference does not contain 0, else ""."""
    low, high = difference.interval
    if not column.better or not (low > 0 or high < 0):
        return ""
    return "better" if (low > 0) == (column.better > 0) else "worse"


# --- the page -----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Cell:
    text: str
    verdict: str = ""


def _section(name: str, evaluations: Sequence[Evaluation], labels: str, pictures: int) -> dict[str, Any]:
    """What the page shows of a benchmark or suite."""
    scores = [one.sections[name] for one in evaluations]
    tables = tables_of(name)
    columns = [column for table in tables for column in table]
    own = [column for column in (SUITES[name].columns if name in SUITES else ()) if column.better][:1]
    charted = [column for column in columns if column.key in (_RANK, "psnr")] + own
    return {
        "name": name, "about": SUITES[name].about if name in SUITES else "",
        "tables": [_table(table, scores, labels) for table in tables], "columns": columns,
        "charts": [chart for column in charted for chart in _charts(column, scores, labels)],
        "examples": _examples(name, evaluations, labels, pictures) if pictures else []}


def _table(columns: Sequence[Column], scores: Sequence[Scores], labels: str) -> dict[str, Any]:
    """Means of all files, row by row, and below them the differences from the first one."""
    rows = shown_rows(scores[0].summary)
    return {"columns": columns, "rows": [_row(row, row, columns, scores, labels) for row in rows]}


def _row(title: str, row: str, columns: Sequence[Column], scores: Sequence[Scores], labels: str) -> dict[str, Any]:
    """A row of a table; `row` names it in the scores."""
    lines = [{"label": label, "colour": number, "cells": [
        _Cell(_text(one.summary.get(row, {}).get(column.key), column.digits)) for column in columns]}
        for number, (label, one) in enumerate(zip(labels, scores, strict=True))]
    for label, other in zip(labels[1:], scores[1:], strict=True):
        changes = [mean_differences(scores[0], other, column.key)[row] for column in columns]
        lines.append({"label": f"{label} − {labels[0]}", "colour": None, "cells": [
            _Cell(_text(change, column.digits, signed=True), verdict(column, change))
            for column, change in zip(columns, changes, strict=True)]})
    counted = [row] if row in scores[0].cases else [*scores[0].cases]
    return {"name": title, "cases": sum(scores[0].count(name) for name in counted), "lines": lines}


def _overview(evaluations: Sequence[Evaluation], labels: str) -> dict[str, Any]:
    """One row for each benchmark or suite: its mean."""
    columns = [column for table in TABLES for column in table if column.key in _MAIN]
    return {"columns": columns, "rows": [
        _row(name, scores.main_row, columns, [one.sections[name] for one in evaluations], labels)
        for name, scores in evaluations[0].sections.items()]}


def _text(mean: Mean | None, digits: int, signed: bool = False) -> str:
    """A mean with half of its interval."""
    if mean is None or np.isnan(mean.value):
        return _UNKNOWN
    if signed and mean.value == 0 and not mean.half_width > 0:
        return "equal"
    half = "" if np.isnan(mean.half_width) else f" ±{mean.half_width:.{digits}f}"
    return f"{mean.value:{'+' if signed else ''}.{digits}f}{half}".replace("-", "−")


def _charts(column: Column, scores: Sequence[Scores], labels: str) -> list[dict[str, Any]]:
    """The means of all files, and the differences of every other file from the first one."""
    means = [(row, [Line(one.summary.get(row, {}).get(column.key, Mean(np.nan, np.nan, 0)), number)
                    for number, one in enumerate(scores)]) for row in shown_rows(scores[0].summary)]
    changes = []
    for row in shown_rows(scores[0].summary):
        lines = []
        for number, other in enumerate(scores[1:], start=1):
            values = differences(scores[0], other, column.key).get(row, np.zeros(0))
            lines.append(Line(mean_differences(scores[0], other, column.key)[row], number, values.tolist()))
        changes.append((row, lines))
    names = " and ".join([", ".join(labels[1:-1]), labels[-1]] if len(labels) > 2 else labels[1:])
    drawn = [(f"{column.heading}: {column.words}", interval_chart(means, column.heading)),
             (f"{column.heading}: {names} minus {labels[0]}, mean and every case",
              interval_chart(changes, f"{column.heading}, difference", zero=True))]
    return [{"title": title, "svg": Markup(svg)} for title, svg in drawn if svg]


def _settings(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Settings, duration and versions of every file."""
    plain = lambda value: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    columns = [{**{name: plain(value) for name, value in one.settings.items()},
                "seconds": _UNKNOWN if np.isnan(one.seconds) else f"{one.seconds:.0f}",
                **{name: plain(value) for name, value in one.versions.items()}}
               for one in evaluations]
    names = dict.fromkeys(name for column in columns for name in column)
    return [{"name": name, "values": values, "differs": len({*values}) > 1}
            for name in names for values in [[column.get(name, _UNKNOWN)[:200] for column in columns]]]


# --- pictures -----------------------------------------------------------------------------------------------------

def _examples(name: str, evaluations: Sequence[Evaluation], labels: str, count: int) -> list[dict[str, Any]]:
    """The cases to show, each once, with the reasons why."""
    scores = [one.sections[name] for one in evaluations]
    key = _RANK if any(_RANK in keys for keys in scores[0].cases.values()) else "psnr"
    reasons: dict[tuple[str, int], list[str]] = {}
    pool = sorted({(row, index) for one in scores for row, numbers in one.pictures.items() for index in numbers})

    def choose(values: Mapping[tuple[str, int], float], worst: str, best: str) -> None:
        ranked = sorted((case for case in pool if np.isfinite(values[case])), key=lambda case: values[case])
        for reason, chosen in ((worst, ranked[:count]), (best, ranked[::-1][:count])):
            for case in chosen if reason else ():
                reasons.setdefault(case, []).append(reason)

    found = [{(row, index): float(_column(one, row, key)[index]) for row, index in pool} for one in scores]
    for label, values in zip(labels, found, strict=True):
        choose(values, f"among the worst of {label}", f"among the best of {label}" if label == labels[0] else "")
    for label, values in zip(labels[1:], found[1:], strict=True):
        choose({case: values[case] - found[0][case] for case in pool}, f"{label} − {labels[0]} among the lowest",
               f"{label} − {labels[0]} among the highest")
    return [_example(name, row, index, why, evaluations, labels, [values[row, index] for values in found])
            for (row, index), why in reasons.items()]


def _example(name: str, row: str, index: int, why: Sequence[str], evaluations: Sequence[Evaluation], labels: str,
             values: Sequence[float]) -> dict[str, Any]:
    """The pictures of a case: inputs and truth once, the result of every file that has it."""
    shows = [index in one.sections[name].pictures.get(row, ()) for one in evaluations]
    owner = evaluations[shows.index(True)]
    change = lambda value: _text(Mean(value - values[0], np.nan, 1), 2, signed=True)
    results = [{"label": label, "colour": number,
                "value": f"{value:.2f} dB" + (f" ({change(value)})" if number else ""),
                "picture": _embedded(one.picture(name, row, index, "result")) if shown else ""}
               for number, (label, one, shown, value) in enumerate(
                   zip(labels, evaluations, shows, values, strict=True))]
    return {"title": f"{row}, case {index}", "why": "; ".join(why), "results": results,
            "inputs": _embedded(owner.picture(name, row, index, "inputs")),
            "truth": _embedded(owner.picture(name, row, index, "truth"))}


def _embedded(path: Path) -> str:
    """A picture as an address that holds it, as JPEG."""
    done, data = cv2.imencode(".jpg", read_image(path)[..., ::-1], _JPEG)
    assert done
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


# --- the short table ----------------------------------------------------------------------------------------------

def _lines(labels: str, evaluations: Sequence[Evaluation]) -> list[str]:
    """Lines of text: the mean of the ranking score of every benchmark or suite, and the differences."""
    lines = [f"{label}: {one.path}" for label, one in zip(labels, evaluations, strict=True)]
    lines += ["", f"{'':16}" + "".join(f"{label:>15}" for label in labels) + "".join(
        f"{f'{label} - {labels[0]}':>15}" for label in labels[1:])]
    for name, scores in evaluations[0].sections.items():
        row = scores.main_row
        key = _RANK if _RANK in scores.summary[row] else "psnr"
        means = [one.sections[name].summary.get(row, {}).get(key) for one in evaluations]
        changes = [mean_differences(scores, one.sections[name], key)[row] for one in evaluations[1:]]
        lines.append(f"{name:16}" + "".join(f"{_text(mean, 2):>15}" for mean in means) + "".join(
            f"{_text(change, 2, signed=True):>15}" for change in changes))
    return [*lines, f"PSNR in dB{' of the region' if key == _RANK else ''}, means with 95 % intervals; differences are "
            "paired, case by case"]
