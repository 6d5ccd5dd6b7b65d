"""Motion: curves continue, stay in range and cover it."""

import numpy as np

from durian_jax.synthetic import sample_motion


def test_more_frames_continue_the_motion():
    short, long = sample_motion("train", 1, 8), sample_motion("train", 1, 24)
    np.testing.assert_array_equal(short.yaw, long.yaw[:8])
    assert short.blink.max() <= 1 and len(long[4:9]) == 5


def test_motion_stays_in_range_and_covers_it():
    clips = [sample_motion("train", index, 16) for index in range(200)]
    yaw = np.stack([clip.yaw for clip in clips])
    assert np.abs(yaw).max() <= 30 and np.abs(yaw).max() > 25
    assert np.ptp(yaw, axis=1).mean() > 20  # degrees in 16 frames
    blink = np.stack([clip.blink for clip in clips])
    assert 0.03 < (blink > 0.8).mean() < 0.4
