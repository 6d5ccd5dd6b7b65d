"""The small autoencoder's decoder: what one frame and one place see of others."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.fields import FieldError
from durian_jax.models.codecs.config import CodecConfig, codec_encoder_fields
from durian_jax.models.codecs.small import Decoder

CONFIG = CodecConfig(encoder_channels=(8, 16), decoder_channels=(8, 16), latent_channels=4, decoder_norm="pixel",
                     temporal_kernel=3)
CLIP = np.random.default_rng(0).normal(size=(12, 8, 8, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def decode():
    """(M, 8, 8, 4) latents and F -> (M, 64, 64, 3), with parameters in which nothing is zero."""
    def make(config):
        decoder = Decoder(config)
        params = decoder.init(jax.random.key(0), CLIP[:2], 2)
        params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)
        run = jax.jit(decoder.apply, static_argnums=2)
        return lambda latents, frames: np.asarray(run(params, jnp.asarray(latents), frames))
    return make


def test_one_frame_is_a_clip_that_stands_still(decode):
    decode = decode(CONFIG)
    alone, still = decode(CLIP[:1], 1)[0], decode(np.repeat(CLIP[:1], 5, 0), 5)
    np.testing.assert_allclose(still, np.broadcast_to(alone, still.shape), atol=1e-5)


def test_a_frame_sees_its_neighbours_in_its_clip_only(decode):
    decode = decode(CONFIG)
    before = decode(CLIP, 6)
    changed = CLIP.copy()
    changed[0] += 1
    difference = np.abs(decode(changed, 6) - before).max(axis=(1, 2, 3))
    reach = 4  # two levels of two layers that see one frame on each side
    assert (difference[:reach + 1] > 1e-4).all() and (difference[reach + 1:] < 1e-6).all()


@pytest.mark.parametrize("norm, far", [("pixel", False), ("group", True)])
def test_a_change_reaches_far_places_through_group_norms_only(decode, norm, far):
    decode = decode(replace(CONFIG, decoder_norm=norm, decoder_channels=(8, 8), temporal_kernel=0))
    wide = np.tile(CLIP[:1], (1, 2, 2, 1))
    changed = wide.copy()
    changed[:, :1, :1] += 3
    difference = np.abs(decode(changed, 1) - decode(wide, 1)).max(axis=-1)[0]
    assert difference[:8, :8].max() > 1e-2
    assert (difference[-8:, -8:].max() > 1e-5) == far


def test_the_decoder_does_not_decide_whether_encoded_samples_fit():
    plain = CodecConfig()
    assert codec_encoder_fields(plain) == codec_encoder_fields(replace(plain, decoder_norm="pixel", temporal_kernel=5))


def test_even_kernels_are_refused():
    with pytest.raises(FieldError, match="expected 0 or an odd number, found 4"):
        CodecConfig(temporal_kernel=4)
    with pytest.raises(FieldError, match="one of group, pixel, found 'layer'"):
        CodecConfig(decoder_norm="layer")
