"""Our networks equal diffusers' and transformers' networks at small width; `make parity` compares the full width."""

import json
from pathlib import Path

import pytest
import torch

from tests.parity import LIMITS, Parity, markdown

FAMILIES = {"unet", "motion", "autoencoder_kl", "autoencoder_tiny", "clip", "reference_attention", "mmdit"}


@pytest.fixture(scope="module")
def rows():
    with torch.no_grad():
        return list(Parity("small").rows())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_blocks_and_networks_equal_pytorchs(rows, family):
    mine = [row for row in rows if row.family == family]
    assert {row.scope for row in mine} == {"block", "network"}
    for row in mine:
        assert row.relative_error < LIMITS[row.scope], row


def test_the_committed_table_has_these_cases_at_full_width(rows):
    """docs/parity.json, which `make parity` writes, has a row for every case, each within its limit."""
    docs = Path(__file__).parents[2] / "docs"
    table = json.loads((docs / "parity.json").read_text())["rows"]
    assert {row["family"] for row in table} == FAMILIES and {row["width"] for row in table} == {"full"}
    assert {(row.family, row.name) for row in rows} <= {(row["family"], row["name"]) for row in table}
    assert all(0 <= row["relative_error"] < LIMITS[row["scope"]] and row["dtype"] == "float32" for row in table)
    text = (docs / "parity.md").read_text()
    assert all(f"| {row['name']} | {row['family']} |" in text for row in table)
    assert markdown(rows, {}, 60.0).count("\n| ") == len(rows) + 1
