"""Exports of tiny random SVDP models."""

from dataclasses import replace
from functools import cache

import pytest

from durian_jax.diffusion import Objective
from durian_jax.models.codecs.config import AutoencoderKLConfig
from tests.helpers.exports import export_random
from tests.helpers.svdp import CODEC, tiny

# Both modes with both position codes; "_sd" has two attentions in the first layer and a null text stream. "one_way" has
# latents of 8 pixels, as svdp:tiny.
KINDS = {
    "one_way": replace(tiny(), codec=replace(CODEC, encoder_channels=(8, 8), decoder_channels=(8, 8))),
    "joint": tiny("joint", video="factorised"),
    "one_way_sd": tiny("one_way", "canvas", video="factorised"),
    "joint_sd": replace(tiny("joint", "canvas"), attribute_capacity=0.5, codec=AutoencoderKLConfig(
        channels=(4, 8, 8), layers=1, latent_channels=4, norm_groups=2, scaling_factor=1.5, shift_factor=0.1,
        quant_conv=False)),
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A function: key of `KINDS` -> its checkpoint and its export, made once. Tests must not change the files."""
    return cache(lambda kind: export_random(KINDS[kind], Objective("flow", "velocity"), tmp_path_factory.mktemp(kind)))
