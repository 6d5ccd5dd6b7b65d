"""Sizes of Durian: contradictions are refused, and plain values restore them."""

import dataclasses

import pytest

from durian_jax.configs.durian import get_config
from durian_jax.errors import InputError
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.family import model_config
from tests.helpers.models import TINY


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        dataclasses.replace(TINY, image_size=40)
    with pytest.raises(ValueError, match="unknown fields"):
        DurianConfig.from_dict({**TINY.to_dict(), "image_sise": 3})


def test_plain_values_restore_the_config():
    assert model_config(TINY.to_dict()) == TINY
    without_family = {name: value for name, value in TINY.to_dict().items() if name != "family"}
    assert DurianConfig.from_dict(without_family) == TINY


@pytest.mark.parametrize("capacity", [0.0, -0.5, 0.3, 1.125, 2])
def test_bad_capacities_are_refused(capacity):
    for name in ("portrait_capacity", "attribute_capacity"):
        with pytest.raises(InputError, match=f"{name}: expected a multiple of 1/8, from 0.125 to 1, found"):
            dataclasses.replace(TINY, **{name: capacity})


@pytest.mark.parametrize("mode", ["single", "tokens"])
def test_the_ablations_have_no_capacity(mode):
    assert dataclasses.replace(TINY, reference_mode=mode).portrait_capacity == 1
    with pytest.raises(InputError, match=f"attribute_capacity: expected 1 for reference_mode='{mode}', found 0.5"):
        dataclasses.replace(TINY, reference_mode=mode, attribute_capacity=0.5)


def test_both_presets_have_capacities_and_old_checkpoints_do_without():
    for preset in ("tiny", "sd15"):
        config = get_config(f"{preset},stage=1")
        config.model.attribute_capacity = 0.5
        model = DurianConfig.from_dict(config.model.to_dict())
        assert (model.portrait_capacity, model.attribute_capacity) == (1.0, 0.5)
    old = {name: value for name, value in TINY.to_dict().items() if not name.endswith("_capacity")}
    assert model_config(old) == TINY
