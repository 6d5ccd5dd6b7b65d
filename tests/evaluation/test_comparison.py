"""Evaluations of the same cases beside each other: paired differences, refusals, and a page that needs nothing else."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from durian_jax.checkpoints import SHIPPED
from durian_jax.errors import InputError
from durian_jax.evaluation import metrics, report
from durian_jax.evaluation.charts import Line, interval_chart
from durian_jax.evaluation.columns import TABLES
from durian_jax.evaluation.comparison import compare_evaluations, mean_differences, verdict
from durian_jax.evaluation.evaluation_files import read_evaluation
from durian_jax.evaluation.examples import Example, Extremes, example_file
from durian_jax.evaluation.metrics import Mean
from tests.commands.runner import durian
from tests.helpers.evaluation import use_blank_model, write_evaluation

COLUMNS = {column.key: column for table in TABLES for column in table}


@pytest.fixture
def files(tmp_path):
    """Two evaluations; the scores of the second are higher by 2."""
    write_evaluation(tmp_path / "a.json")
    write_evaluation(tmp_path / "b.json", better=2.0, steps=4)
    return tmp_path / "a.json", tmp_path / "b.json"


@pytest.fixture
def with_pictures(monkeypatch, tmp_path):
    """Two evaluations of a stand-in model with pictures; both are equal."""
    use_blank_model(monkeypatch, report)
    for name in "ab":
        report.evaluate_checkpoint("blank", suites="masks", cases=4, frames=2, json_path=tmp_path / f"{name}.json",
                                   examples=tmp_path / f"pictures_{name}", example_cases=1)
    return tmp_path / "a.json", tmp_path / "b.json"


def changed(path, change):
    """Write a file again after a change of its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_differences_are_paired(files):
    first, other = (read_evaluation(file) for file in files)
    for name, scores in first.sections.items():
        found = mean_differences(scores, other.sections[name], "psnr")
        assert [*found] == [*scores.summary]
        for mean in found.values():
            assert mean.value == pytest.approx(2) and mean.half_width == pytest.approx(0, abs=1e-9)
        assert scores.summary["mean"]["psnr"].half_width > 1, "unpaired, the scores differ by chance"
        assert verdict(COLUMNS["psnr"], found["mean"]) == "better" and verdict(COLUMNS["l1"], found["mean"]) == "worse"
        assert verdict(COLUMNS["unchanged_psnr"], found["mean"]) == ""
    assert verdict(COLUMNS["psnr"], Mean(-1, 0.5, 3)) == "worse" and verdict(COLUMNS["psnr"], Mean(1, 1.5, 3)) == ""
    assert verdict(COLUMNS["psnr"], Mean(1, np.nan, 1)) == ""


def test_rows_of_the_same_people_are_not_independent():
    rows = [[1.0, 3.0], [2.0, 4.0], [3.0, np.nan]]
    found = metrics.mean_of_rows(rows, same_people=True)
    assert found == metrics.mean_of_cases([2.0, 3.5])
    assert metrics.mean_of_rows(rows[:2]).half_width == pytest.approx(
        metrics.mean_of_rows(rows[:2], same_people=True).half_width / np.sqrt(2))


def test_a_score_that_one_file_lacks_has_no_difference(files):
    changed(files[1], lambda content: [case.pop("tde") for case in content["suites"]["light"]["scores"]["warm"]])
    first, other = (read_evaluation(file).sections["light"] for file in files)
    found = mean_differences(first, other, "tde")
    assert np.isnan(found["warm"].value) and found["cool"].value == pytest.approx(2)


def test_the_page_needs_nothing_else(files, tmp_path):
    text = compare_evaluations(files, tmp_path / "page.html")
    assert re.search(r"light +[\d.]+ ±[\d.]+ +[\d.]+ ±[\d.]+ +\+2\.00 ±0\.00\n", text)
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert "hair + glasses" in page and 'class="better">+2.00 ±0.00' in page and ">steps<" in page
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 2 * 2 * 3
    assert all(ElementTree.fromstring(chart) is not None for chart in charts)


def test_worst_and_best_cases_are_shown(with_pictures, tmp_path):
    compare_evaluations(with_pictures, tmp_path / "page.html", pictures=1)
    page = (tmp_path / "page.html").read_text()
    content = json.loads(with_pictures[0].read_text())
    kept, scores = content["examples"]["cases"]["masks"], content["suites"]["masks"]["scores"]
    region = lambda row, index: scores[row][index]["psnr_region"]
    for row, numbers in kept.items():
        ranked = sorted(range(4), key=lambda index: region(row, index))
        assert numbers == sorted([ranked[0], ranked[-1]])
    values = [region(row, index) for row in scores for index in range(4)]
    for reason, value in (("among the worst of A; among the worst of B", min(values)),
                          ("among the best of A", max(values))):
        (row, index), = re.findall(rf"<b>([a-z ]+), case (\d)</b> · {reason}", page)
        assert region(row, int(index)) == value
        assert f"{value:.2f} dB (equal)" in page
    # Inputs, truth and two results of each shown case, and nothing that lies in another file.
    shown = page.count("<b>")
    assert shown >= 2 and page.count('src="data:image/jpeg;base64,') == page.count("src=") == 4 * shown
    compare_evaluations(with_pictures, tmp_path / "page.html", pictures=0)
    assert "src=" not in (tmp_path / "page.html").read_text()


def test_missing_pictures_are_refused(with_pictures, tmp_path):
    row, (index, _) = next(iter(json.loads(with_pictures[1].read_text())["examples"]["cases"]["masks"].items()))
    (tmp_path / "pictures_b" / example_file("masks", row, index, "truth")).unlink()
    with pytest.raises(InputError, match=r"expected a picture that .*b\.json lists, found none; .*--pictures 0"):
        compare_evaluations(with_pictures, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(("other", "message"), [
    ({"frames": 3}, "expected frames 2, as .*a.json has, found 3"),
    ({"cases": 4}, "expected cases 3, as .*a.json has, found 4"),
    ({"suites": ("light",)}, r"expected suites \['light', 'pairs'\], as .*a.json has, found \['light'\]"),
    ({"split": "benchmark"}, "expected split 'validation'"),
    ({"size": 96}, "expected size 64"),
    ({"benchmark": "synthetic"}, "scores: found None; expected a file that durian evaluate"),
])
def test_other_cases_are_refused(other, message, files, tmp_path):
    write_evaluation(files[1], **other)
    result = durian("compare", *files, "--out", tmp_path / "page.html")
    assert result.exit_code == 2 and re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "page.html").exists()


def test_scores_of_other_cases_are_refused_whatever_the_settings_say(files, tmp_path):
    changed(files[1], lambda content: content["suites"]["pairs"]["scores"]["hair + hat"].pop())
    with pytest.raises(InputError, match="expected cases of pairs .* evaluate both with equal"):
        compare_evaluations(files, tmp_path / "page.html")


@pytest.mark.parametrize("count", [1, 9])
def test_two_to_eight_files(count, files, tmp_path):
    with pytest.raises(InputError, match=f"expected 2 to 8 files .* found {count}"):
        compare_evaluations([files[0]] * count, tmp_path / "page.html")


def test_three_files_are_compared_with_the_first(files, tmp_path):
    result = durian("compare", *files, files[0], "--out", tmp_path / "page.html")
    assert result.exit_code == 0 and "C - A" in result.output and "equal" in result.output
    assert "B and C minus A" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("name", ["tiny", "svdp-tiny"])
def test_shipped_figures_can_be_compared(name, tmp_path):
    figures = SHIPPED / name / "figures.json"
    text = compare_evaluations([figures, figures], tmp_path / "page.html")
    summary = json.loads(figures.read_text())["summary"]
    expected = summary["mean"]["psnr_region"] if name == "tiny" else summary["psnr"]
    assert f"{expected:.2f} ±" in text and text.splitlines()[-2].endswith("equal")


def test_extremes_keep_the_worst_and_the_best():
    kept = Extremes(2)
    for index, value in enumerate([5.0, 1.0, 9.0, np.nan, 4.0, 7.0, 8.0]):
        kept.add(Example(value, index, None, None))
    assert [(example.index, example.value) for example in kept][0] == (1, 1.0)
    assert [example.index for example in kept] == [1, 2, 3, 6]
    nothing = Extremes(0)
    nothing.add(Example(1.0, 0, None, None))
    assert not [*nothing]


def test_names_of_pictures_stay_in_their_folder():
    assert example_file("pairs", "hair + hat", 3, "truth") == "pairs_hair_hat_0003_truth.png"
    assert "/" not in example_file("../../x", "..\\é/..", 0, "result")


def test_charts_place_values_on_one_axis():
    mean = Mean(10.0, 5.0, 4)
    chart = ElementTree.fromstring(interval_chart([("a & b", [Line(mean, 0, (4.0, np.nan))]),
                                                   ("c", [Line(replace(mean, value=20.0), 1)])], "dB", zero=True))
    dots = {dot.get("class"): float(dot.get("cx")) for dot in chart.iter("circle")}
    ticks = {text.text: float(text.get("x")) for text in chart.iter("text") if text.get("class") == "tick"}
    assert dots["c0"] == pytest.approx(ticks["10"], abs=0.1) and dots["c1"] == pytest.approx(ticks["20"], abs=0.1)
    assert dots["c0 faint"] == pytest.approx(ticks["0"] + 0.4 * (ticks["10"] - ticks["0"]), abs=0.2)
    assert [text.text for text in chart.iter("text") if text.get("class") == "name"] == ["a & b", "c"]
    nothing = Line(Mean(np.nan, np.nan, 0), 0)
    assert interval_chart([("a", [nothing])], "dB") == ""
    assert "svg" in interval_chart([("a", [nothing, Line(Mean(0.0, np.nan, 1), 1)])], "dB")
