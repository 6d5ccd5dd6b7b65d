"""Pictures of another size than the model was trained for."""

import dataclasses

import pytest

from durian_jax.errors import InputError
from durian_jax.inference.size import at_size
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.unet.config import UNetConfig

FREE = DurianConfig(image_size=64, unet=UNetConfig(positions=False))


def test_without_a_new_size_the_config_stays():
    for config in (DurianConfig(), FREE):
        assert at_size(config, None, "tiny") is config and at_size(config, config.image_size, "tiny") is config


def test_only_the_picture_size_changes():
    assert at_size(FREE, 96, "mine") == dataclasses.replace(FREE, image_size=96)


def test_a_model_with_a_position_code_makes_one_size():
    with pytest.raises(InputError, match="size 256: the checkpoint tiny makes pictures of 128 x 128 pixels only"):
        at_size(DurianConfig(), 256, "tiny")


def test_sizes_between_the_multiples_are_refused():
    with pytest.raises(InputError, match=f"multiples of {FREE.size_multiple} pixels"):
        at_size(FREE, 100, "mine")
