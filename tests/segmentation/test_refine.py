"""Outlines follow the picture, and the colours of a clip decide where the network is unsure."""

import numpy as np

from durian_jax.segmentation.refine import follow_outlines, guided_filter, with_clip_colours


def disc(side=64, radius=18):
    y, x = np.mgrid[:side, :side]
    return np.hypot(x - side / 2, y - side / 2) < radius


def picture_of(mask, rng):
    colours = np.where(mask[..., None], [60, 40, 30], [150, 160, 200]) + rng.normal(size=(*mask.shape, 3)) * 4
    return np.clip(colours, 0, 255).astype(np.uint8)


def test_the_guided_filter_solves_least_squares_in_each_window():
    """The result is the regression of each 3 x 3 window, averaged over the windows that contain a pixel."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (9, 9, 3), np.uint8)
    layer = rng.random((9, 9))
    filtered = guided_filter(picture, layer, 1, 1e-3)
    from numpy.lib.stride_tricks import sliding_window_view

    colours = picture / 255
    slopes = np.zeros((7, 7, 4))
    for i, j in np.ndindex(7, 7):
        window, values = colours[i:i + 3, j:j + 3].reshape(9, 3), layer[i:i + 3, j:j + 3].ravel()
        centred = window - window.mean(0)
        slope = np.linalg.solve(centred.T @ centred / 9 + 1e-3 * np.eye(3), centred.T @ (values - values.mean()) / 9)
        slopes[i, j] = *slope, values.mean() - slope @ window.mean(0)
    mean = sliding_window_view(slopes, (3, 3), axis=(0, 1)).mean(axis=(3, 4))
    expected = (mean[..., :3] * colours[2:-2, 2:-2]).sum(-1) + mean[..., 3]
    np.testing.assert_allclose(filtered[2:-2, 2:-2], np.clip(expected, 0, 1), atol=2e-3)


def test_a_coarse_answer_follows_the_picture():
    true = disc()
    frame = picture_of(true, np.random.default_rng(1))
    coarse = np.where(np.roll(true, 2, axis=1), 2.0, -2.0).astype(np.float32)  # two pixels off
    fine = follow_outlines(with_clip_colours(coarse[None], frame[None]), frame[None])[0] > 0.5
    wrong, before = (fine != true).mean(), ((coarse > 0) != true).mean()
    assert wrong < 0.3 * before


def test_a_sure_answer_stays():
    true = disc()
    frame = picture_of(np.zeros_like(true), np.random.default_rng(2))  # one colour: the picture says nothing
    sure = np.where(true, 12.0, -12.0).astype(np.float32)
    assert ((with_clip_colours(sure[None], frame[None])[0] > 0) == true).all()
