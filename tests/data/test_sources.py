"""Sources of clips."""

import pytest

from durian_jax.data import ClipList, Mixture
from durian_jax.errors import InputError


def test_mixture_keeps_its_shares(clips):
    mixture = Mixture([ClipList(clips[:3]), ClipList(clips[3:12])], [1, 1])
    names = [mixture.outline(i).identity for i in range(len(mixture))]
    assert len(mixture) == 18 and sum(name in {c.identity for c in clips[:3]} for name in names) == 9
    assert {c.identity for c in clips} <= set(names), "a clip of the longer source is missing"
    assert mixture[12].identity == names[12] == mixture.open(12).identity
    with pytest.raises(InputError, match="remove empty sources"):
        Mixture([ClipList([])])
