"""The numpy network equals the Flax network, and refuses other weights."""

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.topology import GROUPS
from durian_jax.segmentation.features import (
    CHANNELS,
    PATCH,
    SIDE,
    cut_eyes,
    eye_features,
    head_features,
    mirrored,
)
from durian_jax.segmentation.network import Network, flat_weights
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.tensor_files import write_tensors
from tests.helpers.segmentation import EYES, HEAD, random_parameters, write_random_network

PERSON = np.tile(np.arange(128, dtype=np.uint8), (128, 1))  # procedural people have no outline


@pytest.fixture(scope="module")
def clip():
    """A procedural clip of two frames."""
    return render(sample_person("validation", 3), sample_motion("validation", 3, 2), 128)


def features_of(clip):
    return np.stack([head_features(*one, PERSON) for one in zip(clip.frames, clip.keypoints, strict=True)])


def test_numpy_equals_flax(tmp_path, clip):
    write_random_network(tmp_path)
    stored, eyes = Network(tmp_path), np.stack([eye_features(*one) for one in zip(clip.frames, clip.keypoints,
                                                                                  strict=True)])
    for network, params, x, found in zip((HEAD, EYES), random_parameters(), (features_of(clip), eyes),
                                         (stored.head, stored.eyes), strict=True):
        expected = np.asarray(network.apply({"params": params}, x))
        assert expected.std() > 0.1
        np.testing.assert_allclose(found(x), expected, atol=3e-4)


def test_eyes_are_level_and_at_their_place(clip):
    frame, keypoints = clip.frames[0], clip.keypoints[0]
    tall = np.concatenate([frame, frame[:64]])  # another shape of picture
    points = keypoints * [1, 128 / 192, 1]
    patch, matrix = cut_eyes(tall, points)
    eyes = [points[GROUPS[name], :2].mean(axis=0) * [128, 192] @ matrix[:, :2].T + matrix[:, 2]
            for name in ("right_eye", "left_eye")]
    assert patch.shape == (*PATCH, 3)
    np.testing.assert_allclose(eyes, [[28, 48 * 0.42], [68, 48 * 0.42]], atol=1e-3)
    np.testing.assert_allclose(eye_features(tall, points), eye_features(frame, keypoints), atol=0.2)


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
    head, eyes = random_parameters()
    head["out"] = {"kernel": np.ones((1, 1, 8, 8), np.float32), "bias": np.ones(8, np.float32)}
    write_tensors(tmp_path, flat_weights({**head, **eyes}).items())
    with pytest.raises(InputError, match=r"found others \(answers of the shapes \(\(1, 16, 16, 2\), \(1,\)\)\)"):
        Network(tmp_path)
