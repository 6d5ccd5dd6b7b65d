"""Identity embeddings: unit length, refused networks, checkpoints with a network, and where the model uses them."""

import jax
import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, save_checkpoint
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder, open_identity_encoder
from durian_jax.faces.face_crop import face_crop
from durian_jax.inference.durian import transfer_batch
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.references import EncodedReferences
from durian_jax.models.parameters import init_params, variables
from durian_jax.models.unet.config import UNetConfig
from durian_jax.synthetic import render, sample_person, still
from tests.helpers.arcface import WIDTH, write_network


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("identity") / "means.onnx")


def test_embeddings_are_the_network_outputs_at_unit_length(network):
    encoder = IdentityEncoder(network)
    assert encoder.width == WIDTH
    faces = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    pixels = (faces.astype(np.float64) - 127.5) / 127.5
    means = pixels.reshape(3, 4, 28, 4, 28, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(3, -1)
    np.testing.assert_allclose(encoder(faces), means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


def test_networks_that_do_not_fit_are_refused(network, tmp_path):
    assert open_identity_encoder("", None) is None
    with pytest.raises(InputError, match="attends to an identity embedding of width 48.*found none"):
        open_identity_encoder("", WIDTH)
    with pytest.raises(InputError, match="have width 48, the model expects identity_dim=512"):
        open_identity_encoder(network, 512)
    with pytest.raises(InputError, match="expected an ONNX file, found none"):
        IdentityEncoder(tmp_path / "no.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(InputError, match="onnxruntime cannot read it"):
        IdentityEncoder(tmp_path / "text.onnx")
    with pytest.raises(InputError, match=r"expected a network from \(N, 3, 112, 112\)"):
        IdentityEncoder(write_network(tmp_path / "small.onnx", side=56))


@pytest.fixture(scope="module")
def model():
    return DurianConfig(
        image_size=32, keypoint_channels=(8, 8), keypoint_patch=2, temporal_heads=2, identity_dim=WIDTH,
        unet=UNetConfig(channels=(16, 32), heads=(1, 2), attention=(False, True), context_dim=24))


def test_a_checkpoint_loads_its_network(model, network, tmp_path):
    save_checkpoint(tmp_path, Checkpoint(model, Objective(), init_params(model, 0)))
    with pytest.raises(InputError, match=f"ONNX file of an ArcFace network at .*{IDENTITY_FILE}"):
        load_checkpoint(tmp_path)
    write_network(tmp_path / IDENTITY_FILE)
    checkpoint = load_checkpoint(tmp_path)
    portrait, donor = (render(sample_person("benchmark", i, require=("hair",)), still(), size=32) for i in (0, 1))
    batch = transfer_batch(checkpoint, [(portrait, [("hair", donor)])])
    masked = np.where(batch["portrait_mask"][0] > 0, 128, portrait.frames[0]).astype(np.uint8)
    expected, whole = (IdentityEncoder(network)(face_crop(picture, portrait.keypoints[0])[None])
                       for picture in (masked, portrait.frames[0]))
    np.testing.assert_allclose(batch["identity"], expected, atol=1e-6)
    assert np.abs(whole - expected).max() > 1e-4, "the hair to replace is hidden"


def test_only_the_portrait_reference_attends_to_the_identity(model):
    params = {path: x + 0.1 for path, x in init_params(model, 0).items()}
    rng = np.random.default_rng(0)
    noise = lambda *shape: rng.normal(size=shape).astype(np.float32)
    side = model.latent_size

    @jax.jit
    def features(identity):
        encoded = EncodedReferences(latents[0], masks[0], latents[1], masks[1], identity)
        return model.create().apply(variables(params), encoded, method="reference_features")
    latents = noise(1, side, side, 16), noise(1, 2, side, side, 16)
    masks = noise(1, side, side, 1), noise(1, 2, side, side, 1)
    a, b = features(noise(1, WIDTH)), features(noise(1, WIDTH))
    assert abs(a[-1][:, 0] - b[-1][:, 0]).max() > 1e-3
    np.testing.assert_array_equal(a[-1][:, 1:], b[-1][:, 1:])
