"""The numpy network equals the Flax network, and refuses other weights."""

import jax
import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.segmentation.features import CHANNELS, SIDE, head_features, mirrored
from durian_jax.segmentation.flax_network import SegmentationNetwork
from durian_jax.segmentation.network import Network, flat_weights
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.tensor_files import write_tensors

PERSON = np.tile(np.arange(128, dtype=np.uint8), (128, 1))  # procedural people have no outline


@pytest.fixture(scope="module")
def clip():
    """A procedural clip of two frames."""
    return render(sample_person("validation", 3), sample_motion("validation", 3, 2), 128)


def features_of(clip):
    return np.stack([head_features(*one, PERSON) for one in zip(clip.frames, clip.keypoints, strict=True)])


def test_numpy_equals_flax(tmp_path, clip):
    network, x = SegmentationNetwork((8, 16, 24)), features_of(clip)
    params = network.init(jax.random.key(0), x)
    # Norms start as the identity; random ones show mistakes.
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    params = jax.tree.unflatten(tree, [leaf + rng.normal(size=leaf.shape).astype(np.float32) * 0.3 for leaf in leaves])
    write_tensors(tmp_path, flat_weights(params["params"]).items())
    expected = np.asarray(network.apply(params, x))
    assert expected.std() > 0.1
    np.testing.assert_allclose(Network(tmp_path)(x), expected, atol=2e-4)


def test_features_turn_with_the_mirror(clip):
    frame, keypoints, person = clip.frames[0], clip.keypoints[0].copy(), PERSON
    there = head_features(frame, keypoints, person)
    assert there.shape == (SIDE, SIDE, CHANNELS) and np.abs(mirrored(mirrored(there)) - there).max() == 0
    keypoints[:, 0] = 1 - keypoints[:, 0]
    turned = head_features(frame[:, ::-1], keypoints, person[:, ::-1])
    assert np.abs(turned - mirrored(there)).mean() < 0.01


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="no safetensors|model.safetensors"):
        Network(tmp_path)
    write_tensors(tmp_path, {"down_0_conv_0/kernel": np.ones((3, 3, 3, 8), np.float32)}.items())
    with pytest.raises(InputError, match="expected the weights of a segmentation network"):
        Network(tmp_path)
    params = SegmentationNetwork((8, 8)).init(jax.random.key(0), np.zeros((1, 16, 16, CHANNELS)))["params"]
    params["out"] = {"kernel": np.ones((1, 1, 8, 8), np.float32), "bias": np.ones(8, np.float32)}
    write_tensors(tmp_path, flat_weights(params).items())
    with pytest.raises(InputError, match=r"found others \(answers of shape \(1, 16, 16, 2\)\)"):
        Network(tmp_path)
