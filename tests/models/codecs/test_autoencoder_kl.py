"""Stable Diffusion's autoencoder, and Stable Diffusion 3's; tests.parity compares both with diffusers."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from durian_jax.models.codecs.autoencoder_kl import AutoencoderKL
from durian_jax.models.codecs.config import AutoencoderKLConfig, codec_encoder_fields, codec_from_dict

SMALL = AutoencoderKLConfig(channels=(8, 16), layers=1, norm_groups=4)


@pytest.fixture(scope="module")
def small():
    """Images, latents, and random variables."""
    images, latents = (jax.random.uniform(jax.random.key(i), shape, minval=-1) for i, shape in
                       enumerate([(1, 8, 8, 3), (1, 4, 4, 4)]))
    init = lambda m, x: (m.encode(x), m.decode(latents))
    return images, latents, AutoencoderKL(SMALL).init(jax.random.key(2), images, method=init)


def test_latents_are_shifted_and_scaled(small):
    images, latents, variables = small
    run = lambda cfg, x, method: AutoencoderKL(cfg).apply(variables, x, method=method)
    plain, shifted = replace(SMALL, scaling_factor=1.0), replace(SMALL, scaling_factor=1.5, shift_factor=0.25)
    means = run(plain, images, "encode")
    np.testing.assert_allclose(run(shifted, images, "encode"), (means - 0.25) * 1.5, atol=1e-6)
    np.testing.assert_allclose(run(shifted, latents, "decode"), run(plain, latents / 1.5 + 0.25, "decode"), atol=1e-5)


def test_without_quant_conv_its_parameters_are_absent(small):
    images, latents, variables = small
    inner = {"params": {name: x for name, x in variables["params"].items() if "quant" not in name}}
    cfg = replace(SMALL, quant_conv=False)
    found = AutoencoderKL(cfg).apply(inner, images, method="encode")
    moments = AutoencoderKL(cfg).apply(inner, images, method=lambda m, x: m.encoder(x))
    np.testing.assert_array_equal(found, moments[..., :4] * cfg.scaling_factor)
    init = lambda m, x: (m.encode(x), m.decode(latents))
    made = jax.eval_shape(lambda: AutoencoderKL(cfg).init(jax.random.key(0), images, method=init))
    assert set(made["params"]) == {"encoder", "decoder"}


def test_configs_of_version_0_1_are_read():
    """They have neither field, and encoded samples of that version still fit."""
    old = {"channels": [8, 16], "layers": 1, "latent_channels": 4, "norm_groups": 4, "scaling_factor": 0.18215}
    assert codec_from_dict({"codec_kind": "autoencoder_kl", "codec": old}) == SMALL
    assert codec_encoder_fields(SMALL) == {**old, "channels": (8, 16)}
    assert codec_encoder_fields(replace(SMALL, shift_factor=0.1, quant_conv=False)) == {
        **old, "channels": (8, 16), "shift_factor": 0.1, "quant_conv": False}
