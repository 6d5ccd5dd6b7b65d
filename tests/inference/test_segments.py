"""Segments that continue each other."""

import numpy as np
import pytest

from durian_jax.inference.segments import history_before, joined, segment_length, segment_starts


@pytest.mark.parametrize("frames, starts", [(1, [0]), (16, [0]), (17, [0, 1]), (32, [0, 16]), (40, [0, 16, 24]),
                                            (500, [*range(0, 484, 16), 484])])
def test_segments_follow_each_other_and_end_with_the_video(frames, starts):
    assert segment_starts(frames, 16) == starts


@pytest.mark.parametrize("frames", [17, 18, 19, 20, 33, 35, 40, 48])
def test_history_is_the_frames_before_and_the_video_has_every_frame_once(frames):
    """Latents and pictures hold the number of their frame and of their segment."""
    length = segment_length(frames, 16, 3)
    assert length == (9 if frames < 19 else 16)
    starts = segment_starts(frames, length)
    latents: list[np.ndarray] = []
    pictures = []
    for number, start in enumerate(starts):
        before = history_before(number, starts, latents, 3)
        if number == 0:
            assert before is None
        else:
            np.testing.assert_array_equal(before[:, 0, 0, 0], [start - 3, start - 2, start - 1])
        made = np.broadcast_to(np.arange(start, start + length)[:, None, None, None], (length, 2, 2, 1))
        latents = [*latents[-1:], made]
        pictures.append(made)
    video = np.concatenate([*joined(pictures, starts)])
    np.testing.assert_array_equal(video[:, 0, 0, 0], np.arange(frames))


def test_history_comes_from_the_newest_segment_that_has_the_frame():
    starts = [0, 4, 5]
    first, second = (np.full((4, 1, 1, 1), value) for value in (1, 2))
    np.testing.assert_array_equal(history_before(2, starts, [first, second], 3)[:, 0, 0, 0], [1, 1, 2])


def test_where_the_last_segment_overlaps_the_earlier_frames_stay():
    segments = [np.full((4, 1, 1, 3), value, np.uint8) for value in (1, 2)]
    np.testing.assert_array_equal(np.concatenate([*joined(segments, [0, 2])])[:, 0, 0, 0], [1, 1, 1, 1, 2, 2])
