"""MediaPipe's attention mesh (arXiv 2006.10962): 478 points of a face, with exact lips, lids and irises."""

from pathlib import Path

import numpy as np
from scipy.special import expit

from durian_jax.annotator.attention import OPERATORS
from durian_jax.annotator.graph import Graph
from durian_jax.annotator.places import Square, face_square

# Side of the model's input in pixels.
_SIZE = 192
# Points of the coarse mesh; irises follow, five points each.
_COARSE, _IRIS = 468, 5
# Outer corners of the eyes, that on the left of the picture first.
_CORNERS = (33, 263)
# The first points of an eye are the lids' edges; an iris has their mean depth.
_LIDS = 16


class FaceMesh:
    """The attention mesh.

    Args:
        models: folder of the model files.
        threads: number of threads.
    """

    def __init__(self, models: Path, threads: int = 2):
        self._graph = Graph(models / "face_landmark_with_attention.tflite", OPERATORS, threads)
        # The model itself says which points of the mesh each region refines.
        self._lips, *self._eyes = (list(one["subset_idxs"]) for one in
                                   self._graph.attributes["Landmarks2TransformMatrix"])

    def __call__(self, image: np.ndarray, square: Square) -> tuple[np.ndarray, float]:
        """Find the mesh of the face in a square.

        Args:
            image: (H, W, 3) uint8 RGB.
            square: where to look.

        Returns:
            (478, 3) float32: x and y in pixels, depth on the same scale; and the probability 0 .. 1 of a face.
        """
        found = self._graph((square.cut(image, _SIZE).astype(np.float32) / 255)[None])
        points = np.empty((_COARSE + 2 * _IRIS, 3), np.float32)
        points[:_COARSE] = found["output_mesh_identity"].reshape(-1, 3)
        points[self._lips, :2] = found["output_lips"].reshape(-1, 2)
        for number, (side, eye) in enumerate(zip(("left", "right"), self._eyes, strict=True)):
            points[eye, :2] = found[f"output_{side}_eye"].reshape(-1, 2)
            iris = slice(_COARSE + number * _IRIS, _COARSE + (number + 1) * _IRIS)
            points[iris, :2] = found[f"output_{side}_iris"].reshape(-1, 2)
            points[iris, 2] = points[eye[:_LIDS], 2].mean()
        sure = float(expit(found["conv_faceflag"].item()))
        return square.points(points / _SIZE), sure


def next_square(points: np.ndarray) -> Square:
    """Where to look for a face with these (478, 3) points in the next frame."""
    flat = points[:, :2].astype(np.float64)
    return face_square(flat.min(0), flat.max(0), flat[list(_CORNERS)])
