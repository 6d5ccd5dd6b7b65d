"""Warps: similarity, spline and alignment are exact where they must be."""

import numpy as np

from durian_jax.faces import warp
from tests.helpers.faces import face


def test_a_smooth_spline_passes_nearly_through_points_that_count():
    """Smoothness may differ from point to point; points that coincide are no problem."""
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 1, (20, 2))
    source[1] = source[0]
    target = source + rng.normal(0, 0.02, source.shape)
    smooth = np.full(20, 1.0)
    smooth[10:] = 1e-4
    away = np.abs(warp.spline(source, target, smooth)(source) - target).max(1)
    assert away[10:].max() < 1e-3 < 5e-3 < away[:10].max()
    np.testing.assert_allclose(warp.spline(source[2:], target[2:], 1e-9)(source[2:]),
                               warp.spline(source[2:], target[2:])(source[2:]), atol=1e-5)


def test_similarity_is_exact_and_never_mirrors():
    source = np.random.default_rng(0).normal(size=(9, 2))
    cos, sin = 1.2 * np.cos(0.4), 1.2 * np.sin(0.4)
    matrix = np.array([[cos, -sin, 3.0], [sin, cos, -2.0]])
    target = source @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(warp.similarity(source, target), matrix, atol=1e-12)
    assert np.linalg.det(warp.similarity(source, source * [-1, 1])[:, :2]) >= 0


def test_warping_by_whole_pixels_only_moves_pixels():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    moved = warp.warp_image(image, np.array([[1, 0, 4], [0, 1, 3.0]]))
    np.testing.assert_array_equal(moved[3:, 4:], image[:-3, :-4])
    assert not moved[:3].any()
    # Positions count from the corner, so doubling turns each pixel into a 2x2 block at the same place.
    double = warp.warp_image(image, np.array([[2.0, 0, 0], [0, 2.0, 0]]), "replicate", size=(40, 60))
    np.testing.assert_allclose(double.reshape(20, 2, 30, 2, 3).mean((1, 3))[2:-2, 2:-2].mean(),
                               image[2:-2, 2:-2].mean(), rtol=0.02)


def test_spline_interpolates_and_reproduces_affine_maps():
    rng = np.random.default_rng(1)
    source, target, elsewhere = rng.normal(size=(12, 2)), rng.normal(size=(12, 2)), rng.normal(size=(5, 2))
    np.testing.assert_allclose(warp.spline(source, target)(source), target, atol=1e-8)
    linear, shift = rng.normal(size=(2, 2)), rng.normal(size=2)
    np.testing.assert_allclose(warp.spline(source, source @ linear.T + shift)(elsewhere),
                               elsewhere @ linear.T + shift, atol=1e-7)


def test_align_follows_the_face():
    points = face(np.random.default_rng(0))
    target = warp.transform_keypoints(points, np.array([[0.9, 0, 16.0], [0, 0.9, 4.0]]), 128, 128)
    y, x = np.mgrid[:128, :128]
    image = np.repeat((2 * x).astype(np.uint8)[..., None], 3, 2)
    mask = (abs(x - 64) < 20) & (abs(y - 30) < 12)
    moved, moved_mask = warp.align(image, mask, points, target)
    expected = (abs(x - (0.9 * 64 + 16)) < 18) & (abs(y - (0.9 * 30 + 4)) < 10.8)
    assert (moved_mask ^ expected).sum() < 0.06 * expected.sum()
    # Column c of the target shows column (c + 0.5 - 16) / 0.9 - 0.5 of the source.
    columns = np.arange(40, 90)
    np.testing.assert_allclose(moved[64, columns, 0], 2 * ((columns + 0.5 - 16) / 0.9 - 0.5), atol=1.5)
    same, same_mask = warp.align(image, mask, points, points)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(same_mask, mask)
