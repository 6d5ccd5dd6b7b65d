"""The operators of MediaPipe's attention mesh that LiteRT lacks.

First the model predicts the whole mesh. Then it resamples the features around lips and eyes and predicts these regions
anew. A matrix maps places in the resampled features to places in the whole map (MediaPipe 0.10.21, version 2 of these
operators).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np


def region_matrix(attributes: Mapping[str, Any], inputs: list[np.ndarray]) -> np.ndarray:
    """(1, 4, 4): from places in the region's features to places in the whole map.

    Args:
        attributes: the region's points `subset_idxs`; `left_rotation_idx` and `right_rotation_idx`, whose line becomes
            horizontal; the region's enlargement `scale_x`, `scale_y`; its size `output_width`, `output_height`.
        inputs: the mesh, (1, N, 3), in units of the whole map.
    """
    points = inputs[0][0, :, :2].astype(np.float64)
    right, left = points[attributes["right_rotation_idx"]], points[attributes["left_rotation_idx"]]
    angle = np.arctan2(*(right - left)[::-1]) - attributes["target_rotation_radians"]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    indices = attributes["subset_idxs"]
    upright = points[indices] @ turn
    low, high = upright.min(0), upright.max(0)
    size = np.array([attributes["output_width"], attributes["output_height"]])
    scale = (high - low) * (attributes["scale_x"], attributes["scale_y"]) / size
    matrix = np.eye(4)
    matrix[:2, :2] = turn * scale
    matrix[:2, 3] = turn @ ((low + high) / 2) - matrix[:2, :2] @ (size / 2)
    return matrix[None].astype(np.float32)


def resample(attributes: Mapping[str, Any], inputs: list[np.ndarray]) -> np.ndarray:
    """(1, h, w, C): features of a region, bilinear; 0 outside the map. Centres of cells lie at halves.

    Args:
        attributes: the region's size `output_height` and `output_width`.
        inputs: the map, (1, H, W, C), and a matrix as of `region_matrix`.
    """
    features, matrix = inputs[0][0], inputs[1][0]
    height, width = features.shape[:2]
    rows, columns = np.mgrid[:attributes["output_height"], :attributes["output_width"]] + 0.5
    x, y = (matrix[row, 0] * columns + matrix[row, 1] * rows + matrix[row, 3] - 0.5 for row in (0, 1))
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    left, top = np.clip(np.floor(x).astype(int), 0, width - 2), np.clip(np.floor(y).astype(int), 0, height - 2)
    right, down = (x - left)[..., None], (y - top)[..., None]
    upper = features[top, left] * (1 - right) + features[top, left + 1] * right
    lower = features[top + 1, left] * (1 - right) + features[top + 1, left + 1] * right
    return ((upper * (1 - down) + lower * down) * inside[..., None])[None].astype(np.float32)


def place_points(attributes: Mapping[str, Any], inputs: list[np.ndarray]) -> np.ndarray:
    """(1, N, 2): points of a region's features, (1, N, 2), in the whole map, by a matrix as of `region_matrix`."""
    points, matrix = inputs[0], inputs[1][0]
    return (points @ matrix[:2, :2].T + matrix[:2, 3]).astype(np.float32)


OPERATORS = {"Landmarks2TransformMatrix": region_matrix, "TransformTensorBilinear": resample,
             "TransformLandmarks": place_points}
