"""Procedural clips as records."""

import dataclasses
import pickle

import numpy as np
import pytest

from durian_jax.data import RecordedClips, SyntheticClips, synthesize
from durian_jax.errors import DiskFull
from tests.helpers.data import CONFIG, assert_same, sample
from tests.helpers.disk import full_disk


def test_rendered_and_recorded_clips_are_equal(tmp_path):
    drawn = pickle.loads(pickle.dumps(SyntheticClips("validation", 3, frames=2, size=32, offset=5)))
    about = synthesize(tmp_path, "validation", clips=3, frames=2, size=32, first=5, workers=0, shard_size=2)
    recorded = RecordedClips(tmp_path)
    assert about["first"] == 5 and len(recorded) == len(drawn) == 3
    for i in range(3):
        np.testing.assert_array_equal(recorded[i].frames, drawn[i].frames)
        np.testing.assert_array_equal(recorded[i].masks, drawn[i].masks)
        np.testing.assert_array_equal(recorded[i].keypoints, drawn[i].keypoints)
    config = dataclasses.replace(CONFIG, image_size=32)
    assert_same(sample(recorded, 0, 1, config), sample(drawn, 0, 1, config))


def test_a_full_disk_leaves_the_earlier_dataset(tmp_path):
    synthesize(tmp_path, "train", 2, 2, 32, workers=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DiskFull, match="could not be written: the disk is full"), full_disk(4000):
        synthesize(tmp_path, "validation", 6, 4, 32, workers=0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
