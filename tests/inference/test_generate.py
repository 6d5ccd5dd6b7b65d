"""Sampling a batch with random weights: which changes of a call must not change the result, and which must."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.inference import generate as module
from durian_jax.inference.generate import JaxBackend, generate, reconstruct, references
from durian_jax.models.attention import references as attention
from durian_jax.models.durian.model import Durian
from durian_jax.models.parameters import variables
from tests.helpers.models import TINY, random_batch, random_params, with_attributes

FAST = Sampling(steps=2)


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint(TINY, Objective(), random_params())


def levels(a, b):
    """Largest difference in grey levels."""
    return np.abs(a.astype(int) - b.astype(int)).max()


def test_one_seed_gives_one_clip(checkpoint):
    batch = random_batch()
    clip = generate(checkpoint, batch, FAST)
    assert clip.shape == (2, 3, 32, 32, 3) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, generate(checkpoint, batch, FAST))
    assert levels(clip, generate(checkpoint, batch, Sampling(steps=2, seed=1))) > 2


def test_without_sampling_the_checkpoint_has_the_defaults(checkpoint):
    batch, own = random_batch(), replace(checkpoint, sampling=replace(FAST, seed=1))
    clip = generate(own, batch)
    np.testing.assert_array_equal(clip, generate(checkpoint, batch, own.sampling))
    backend = JaxBackend(own)
    np.testing.assert_array_equal(clip, backend.generate_segment(batch, backend.sampling).images)
    assert levels(clip, generate(own, batch, FAST)) > 2, "given settings come first"


def test_targets_are_ignored(checkpoint):
    batch = random_batch()
    inputs = {name: x for name, x in batch.items() if name not in ("frames", "frame_masks")}
    np.testing.assert_array_equal(generate(checkpoint, batch, FAST), generate(checkpoint, inputs, FAST))


def test_references_can_be_computed_ahead(checkpoint):
    """The batch then needs no fields of pictures."""
    batch = random_batch()
    shared = references(checkpoint, batch)
    clip_fields = {name: batch[name] for name in ("keypoints", "attribute_valid")}
    assert levels(generate(checkpoint, clip_fields, FAST, references=shared), generate(checkpoint, batch, FAST)) <= 1


def test_guidance_of_one_is_no_guidance(checkpoint):
    batch = random_batch()
    plain = generate(checkpoint, batch, FAST)
    assert levels(plain, generate(checkpoint, batch, Sampling(steps=2, guidance_scale=1.0 + 1e-6))) <= 1
    assert levels(plain, generate(checkpoint, batch, Sampling(steps=2, guidance_scale=3.0))) > 2


def test_blending_all_to_one_attribute_is_that_attribute(checkpoint):
    batch = random_batch(attributes=2)
    blended = generate(checkpoint, {**batch, "attribute_weights": np.full((2, 3, 2), [0.0, 1.0])}, FAST)
    assert levels(blended, generate(checkpoint, with_attributes(batch, [1]), FAST)) <= 1


def test_every_frame_has_its_own_blend(checkpoint):
    batch = random_batch(attributes=2)
    weights = np.tile(np.float32([[1, 0], [0, 1], [1, 0]]), (2, 1, 1))
    mixed = generate(checkpoint, {**batch, "attribute_weights": weights}, FAST, temporal=False)
    for frame, alone in ((0, 0), (1, 1), (2, 0)):
        expected = generate(checkpoint, with_attributes(batch, [alone]), FAST, temporal=False)
        assert levels(mixed[:, frame], expected[:, frame]) <= 1


def test_weights_are_bent_as_the_call_s_sampling_says(checkpoint):
    batch, bent = random_batch(attributes=2), replace(FAST, blend_bend=0.5)
    weights = np.full((2, 3, 2), [0.75, 0.25], np.float32)
    found = generate(checkpoint, {**batch, "attribute_weights": weights}, bent)
    np.testing.assert_array_equal(found, generate(checkpoint, {**batch, "attribute_weights": bent.bent(weights)}, FAST))
    assert levels(found, generate(checkpoint, {**batch, "attribute_weights": weights}, FAST)) > 1


def test_noise_belongs_to_the_frame_of_the_video(checkpoint):
    """Without motion modules, a frame does not depend on the window that it is sampled in."""
    batch = random_batch()
    whole = generate(checkpoint, batch, FAST, temporal=False)
    tail = generate(checkpoint, {**batch, "keypoints": batch["keypoints"][:, 1:]}, FAST, temporal=False, first_frame=1)
    assert levels(whole[:, 1:], tail) <= 1


def test_frames_that_share_their_noise_and_motion_are_equal(checkpoint):
    batch = random_batch()
    batch["keypoints"] = np.repeat(batch["keypoints"][:, :1], 3, 1)
    shared = generate(checkpoint, batch, replace(FAST, noise="clip"), temporal=False)
    assert levels(shared[:, 1:], shared[:, :1]) <= 1
    assert levels(shared[:, :1], generate(checkpoint, batch, FAST, temporal=False)[:, :1]) <= 1, "noise of frame 0"
    own = generate(checkpoint, batch, FAST, temporal=False)
    assert levels(own[:, 1:], own[:, :1]) > 1
    none = replace(FAST, noise="none")
    zero = generate(checkpoint, batch, none, temporal=False)
    assert levels(zero[:, 1:], zero[:, :1]) <= 1 and levels(zero, shared) > 1
    np.testing.assert_array_equal(generate(checkpoint, batch, replace(none, seed=9), temporal=False), zero)


def test_large_pictures_are_made_in_parts(checkpoint, monkeypatch):
    """Attention in chunks, and decoding one picture at a time, give the same pictures."""
    expected = generate(checkpoint, random_batch(), FAST, temporal=False)
    monkeypatch.setattr(module, "_MANY_TOKENS", 1)
    monkeypatch.setattr(module, "_DECODED", 1)
    chunked, in_chunks, decoded, decode = [], attention.in_chunks, [], Durian.decode
    monkeypatch.setattr(attention, "in_chunks", lambda *values: chunked.append(1) or in_chunks(*values))
    monkeypatch.setattr(Durian, "decode", lambda model, latents, temporal: decoded.append(len(latents)) or decode(
        model, latents, temporal))
    assert levels(generate(checkpoint, random_batch(), FAST, temporal=False), expected) <= 1
    assert chunked and decoded and set(decoded) == {1}
    generate(checkpoint, random_batch(frames=4), FAST)
    assert decoded[-1] == 4, "the decoder has temporal layers and takes a clip at a time"


def test_more_frames_than_the_model_knows_are_refused(checkpoint):
    with pytest.raises(InputError, match="9 frames at once exceed the 8"):
        generate(checkpoint, random_batch(frames=9), FAST)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"guidance_scale": -1.0}, {"seed": 2**32}, {"sampler": "euler"}])
def test_sampling_refuses_senseless_settings(wrong):
    with pytest.raises(InputError, match=f"^{next(iter(wrong))}: expected"):
        Sampling(**wrong)


def test_decoding_does_not_clip(checkpoint):
    """Clipped pixels would have no gradient: a loss could not bring them back."""
    model, params = checkpoint.config.create(), variables(checkpoint.params)
    side = checkpoint.config.latent_size
    latents = 100 * np.random.default_rng(0).normal(size=(1, side, side, checkpoint.config.codec.latent_channels))
    assert np.abs(model.apply(params, latents, method=model.decode)).max() > 1.0


def test_reconstruction_has_the_shape_of_the_images(checkpoint):
    images = random_batch()["portrait"]
    assert reconstruct(checkpoint, images).shape == images.shape
