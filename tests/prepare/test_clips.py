"""Clips of a video: settings, segments, and one set of attributes per person."""

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit, layer_bit
from durian_jax.faces.regions import landing_region
from durian_jax.prepare import crop, track
from durian_jax.prepare.clips import Settings, agreed_masks, split_run
from tests.helpers.prepare import wearers


@pytest.fixture(scope="module")
def people():
    return wearers()


@pytest.mark.parametrize("change", [{"size": 0}, {"margin": -1}, {"fps": 0}, {"faces": "second"},
                                    {"encoding": "gif"}, {"max_frames": 0}, {"segment_frames": 4}])
def test_invalid_settings_are_refused(change):
    with pytest.raises(InputError):
        Settings(**change)


def test_runs_and_segments():
    usable = np.array([1, 1, 0, 1, 1, 1, 1, 0], bool)
    cuts = np.zeros(8, bool)
    cuts[5] = True
    assert crop.frame_ranges(usable, cuts) == [(0, 2), (3, 5), (5, 7)]
    assert split_run(10, 110, 2, 48, 8) == [(10, 60), (60, 110)]
    assert split_run(0, 15, 2, 48, 9) == []
    for last in range(17, 400, 13):
        parts = split_run(0, last, 2, 48, 8)
        assert parts[0][0] == 0 and parts[-1][1] == last
        assert all(a[1] == b[0] for a, b in zip(parts[:-1], parts[1:], strict=True))
        assert all(8 <= -(-(b - a) // 2) <= 48 for a, b in parts)
    assert track.describe_ranges([(0, 4), (7, 8)]) == "0-3, 7"


def test_one_person_has_one_set_of_attributes(people):
    clip = people["glasses"]
    both = attribute_bit("hair") | attribute_bit("hat") | layer_bit("person")
    masks = np.full_like(clip.masks, both)
    agreed = agreed_masks(masks, clip.keypoints, ["hair", "glasses"])
    glasses = landing_region("glasses", clip.keypoints[0], 128, 128)
    assert np.array_equal((agreed[0] & attribute_bit("glasses")) > 0, glasses)
    assert np.array_equal((agreed[0] & attribute_bit("hair")) > 0, ~glasses)
    assert not (agreed & attribute_bit("hat")).any() and (agreed & layer_bit("person")).all()
    supplied = agreed_masks(masks, clip.keypoints, ["glasses"], supplied=("glasses", "hat"))
    assert (supplied & attribute_bit("hat")).all() and not (supplied & attribute_bit("glasses")).any()
