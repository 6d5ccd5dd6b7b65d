"""Attributes: held-out combinations occur in the benchmark only."""

import pytest

from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic import held_out, sample_person
from durian_jax.synthetic.attributes import PAIRS

FORM = {"hair": ("cut", "family"), "glasses": ("shape", "tint"), "beard": ("form", "family"),
        "hat": ("form", "band")}


def pair(kind, attribute):
    return tuple(getattr(attribute, name) for name in FORM[kind])


@pytest.mark.parametrize("kind", ATTRIBUTE_KINDS)
def test_benchmark_combinations_are_unseen_in_training(kind):
    seen = {split: {pair(kind, sample_person(split, i, (kind,)).attributes[kind]) for i in range(400)}
            for split in ("train", "validation", "benchmark")}
    assert not seen["benchmark"] & (seen["train"] | seen["validation"])
    assert all(held_out(kind, *p) for p in seen["benchmark"])
    forms, families = PAIRS[kind]
    assert {p[0] for p in seen["train"]} == set(forms) == {p[0] for p in seen["benchmark"]}
    assert {p[1] for p in seen["train"]} == set(families)
