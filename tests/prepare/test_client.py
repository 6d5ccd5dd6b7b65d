"""The annotator's client, without MediaPipe and with it."""

import sys

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.topology import MEDIAPIPE_INDICES
from durian_jax.prepare.client import Annotator
from durian_jax.synthetic import render, sample_motion, sample_person


def test_annotator_without_mediapipe_says_so(monkeypatch):
    monkeypatch.setenv("DURIAN_ANNOTATOR_PYTHON", sys.executable)
    with pytest.raises(InputError, match="No module named 'mediapipe'"):
        Annotator()


def test_procedural_faces_are_found(annotator, tmp_path):
    """Users pass the demo's pictures to `durian animate`."""
    errors = []
    for index in range(4):
        clip = render(sample_person("validation", index), sample_motion("validation", index, 1), size=512)
        mesh = annotator.mesh(clip.frames[0])
        assert mesh is not None, index
        away = mesh[MEDIAPIPE_INDICES, :2] / 512 - clip.keypoints[0, :, :2]
        errors.append(np.linalg.norm(away, axis=-1).mean())
    assert np.mean(errors) < 0.04
