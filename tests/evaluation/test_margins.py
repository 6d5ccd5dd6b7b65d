"""The benchmark of margins measures each margin, and restores the chosen ones."""

import numpy as np
import pytest

from benchmarks.margins import scores, table
from benchmarks.sections import replace_section, write_section
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.inference import references


@pytest.mark.slow
def test_wider_margins_change_the_scores_of_the_shipped_checkpoint():
    before = dict(references.MARGINS)
    found = scores("tiny", 1, (1, 6))
    assert before == references.MARGINS
    assert {kind for kind, _ in found} == set(ATTRIBUTE_KINDS)
    assert all(rows.shape == (2, 2) and np.ptp(rows[:, 1]) > 0 for rows in found.values())
    assert all((rows > 10).all() for rows in found.values())


def test_the_best_margin_is_marked():
    rows = {("hair", True): np.array([[20.0, 30.0], [22.5, 29.0], [22.5, 27.0]])}
    assert table(rows, (2, 4, 6))[-1] == "| hair | wears it | 20.00 / 30.00 | **22.50 / 29.00** | 22.50 / 27.00 |"


def test_margins_are_positive_for_every_kind():
    assert set(references.MARGINS) == set(ATTRIBUTE_KINDS)
    assert all(1 <= margin <= 6 for margin in references.MARGINS.values())


def test_sections_are_replaced_or_appended(tmp_path):
    page = "# A\n\nwords\n\n## B\n\nold\n\n## C\n\nrest\n"
    assert replace_section(page, "B", "new\n") == "# A\n\nwords\n\n## B\n\nnew\n\n## C\n\nrest\n"
    assert replace_section(page, "D", "new") == page + "\n## D\n\nnew\n"
    for lines in (["old"], ["a", "b"]):
        write_section(tmp_path / "page.md", "B", lines)
    assert (tmp_path / "page.md").read_text() == "## B\n\na\nb\n"
