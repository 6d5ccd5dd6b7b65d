"""The table of model families."""

from dataclasses import replace

import pytest

from durian_jax import families
from durian_jax.errors import InputError
from durian_jax.families import FAMILIES, get_family, register
from durian_jax.models.family import model_config
from tests.helpers.models import TINY


@pytest.fixture
def table(monkeypatch):
    """A copy of the table, which the test may change."""
    monkeypatch.setattr(families, "FAMILIES", dict(FAMILIES))
    return families.FAMILIES


def test_every_part_of_a_packaged_family_exists():
    for family in FAMILIES.values():
        for part, place in vars(family).items():
            assert not place or family.load(part)


def test_unknown_families_are_refused_with_the_known_ones():
    first = next(iter(FAMILIES))
    with pytest.raises(InputError) as error:
        get_family(first[:-1])
    assert f"unknown model family '{first[:-1]}'; expected one of {', '.join(FAMILIES)}" in str(error.value)
    assert str(error.value).endswith(f"; did you mean {first}?")
    with pytest.raises(InputError) as error:
        model_config({"family": 3})
    assert "unknown model family 3; expected one of" in str(error.value) and "did you mean" not in str(error.value)


def test_without_a_family_it_is_the_first():
    values = TINY.to_dict()
    assert values.pop("family") == next(iter(FAMILIES))
    assert model_config(values) == model_config(TINY.to_dict()) == TINY


def test_a_name_belongs_to_one_family(table):
    first, family = next(iter(FAMILIES.items()))
    other = replace(family, convert="")
    register("mine", other)
    register("mine", other)  # a module may be imported twice
    assert get_family("mine") is other
    register(first, replace(family))
    for name, entry in ((first, other), ("mine", family)):
        with pytest.raises(InputError, match=f"the model family '{name}' exists already; choose another name"):
            register(name, entry)
    assert table[first] is family and "mine" not in FAMILIES


def test_a_missing_part_is_refused(table):
    register("mine", replace(next(iter(FAMILIES.values())), pytorch=""))
    with pytest.raises(InputError, match="no part 'pytorch'"):
        get_family("mine").load("pytorch")
