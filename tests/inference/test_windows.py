"""Windows of a long video: where they start, and how they are joined."""

import numpy as np
import pytest

from durian_jax.inference.windows import cross_fade, window_starts


@pytest.mark.parametrize(("frames", "window", "starts"), [
    (5, 5, [0]),
    (16, 16, [0]),
    (17, 16, [0, 1]),
    (40, 16, [0, 12, 24]),
    (41, 16, [0, 12, 24, 25]),
    (3, 1, [0, 1, 2]),
])
def test_windows_cover_the_video(frames, window, starts):
    assert window_starts(frames, window) == starts


def test_cross_fade_is_linear_and_keeps_a_constant():
    constant = np.full((8, 2, 2, 3), 77, np.uint8)
    starts = window_starts(14, 8)
    assert starts == [0, 6]
    joined = np.concatenate([*cross_fade([constant, constant], starts)])
    assert joined.shape == (14, 2, 2, 3) and (joined == 77).all()
    joined = np.concatenate([*cross_fade([np.zeros_like(constant), np.full_like(constant, 240)], starts)])
    # Two frames overlap, with weights of 1/3 and 2/3.
    assert joined[:, 0, 0, 0].tolist() == [0] * 6 + [80, 160] + [240] * 6


def test_cross_fade_joins_slices_of_one_video_exactly():
    video = np.random.default_rng(0).integers(0, 256, (37, 2, 2, 3), dtype=np.uint8)
    starts = window_starts(37, 16)
    np.testing.assert_array_equal(np.concatenate([*cross_fade([video[s:s + 16] for s in starts], starts)]), video)


def test_windows_are_handed_out_before_the_next_one_is_made():
    """Each part is final when it comes: a long video is never in memory as a whole."""
    made = []

    def windows():
        for start in starts:
            made.append(start)
            yield np.full((8, 2, 2, 3), 10, np.uint8)
    starts = window_starts(30, 8)
    parts = cross_fade(windows(), starts)
    lengths = [(len(next(parts)), len(made)) for _ in starts]
    assert lengths == [(following - start, number) for number, (start, following) in enumerate(
        zip(starts, [*starts[1:], 30], strict=True), start=1)]
