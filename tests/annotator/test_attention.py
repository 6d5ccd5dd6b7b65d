"""Operators of the attention mesh, on numbers that are known."""

import numpy as np

from durian_jax.annotator.attention import place_points, region_matrix, resample

REGION = {"subset_idxs": [0, 1, 2, 3], "left_rotation_idx": 0, "right_rotation_idx": 1, "target_rotation_radians": 0.0,
          "scale_x": 1.0, "scale_y": 1.0, "output_width": 4, "output_height": 2}
CORNERS = np.float32([[10, 20, 5], [18, 20, 5], [18, 24, 5], [10, 24, 5]])


def turned(points, angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([points[:, :2] @ np.float32([[cos, sin], [-sin, cos]]), points[:, 2:]], 1)


def test_the_matrix_maps_the_region_onto_its_points():
    for angle in (0.0, 0.6, -2.0):
        corners = turned(CORNERS, angle)
        matrix = region_matrix(REGION, [corners[None]])
        placed = place_points({}, [np.float32([[[0, 0], [4, 0], [4, 2], [0, 2]]]), matrix])
        np.testing.assert_allclose(placed[0], corners[:, :2], atol=1e-4)
    wide = region_matrix(REGION | {"scale_x": 1.5, "scale_y": 1.5}, [CORNERS[None]])
    np.testing.assert_allclose(place_points({}, [np.float32([[[0, 0], [4, 2]]]), wide])[0], [[8, 19], [20, 25]],
                               atol=1e-4)


def test_features_are_read_at_the_centres_of_cells():
    rows, columns = np.mgrid[:12, :16].astype(np.float32) + 0.5
    features = np.stack([columns, rows], -1)[None]  # a feature is its own place
    corners = CORNERS - np.float32([8, 18, 0])
    matrix = region_matrix(REGION, [corners[None]])
    expected = place_points({}, [np.float32([[[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [3.5, 0.5]]]), matrix])
    np.testing.assert_allclose(resample(REGION, [features, matrix])[0, 0], expected[0], atol=1e-4)
    outside = region_matrix(REGION, [(corners + np.float32([0, 100, 0]))[None]])
    assert not resample(REGION, [features, outside]).any()
