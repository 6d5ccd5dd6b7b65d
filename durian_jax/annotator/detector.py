"""MediaPipe's face detectors (BlazeFace, arXiv 1907.05047): boxes, eyes and scores of the faces in a picture."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.special import expit

from durian_jax.annotator.graph import Graph
from durian_jax.annotator.places import Square, face_square, overlap

# Detections of one face overlap by more than this; they are averaged.
SAME_FACE = 0.3


@dataclass(frozen=True)
class Detection:
    """A detected face.

    Attributes:
        box: (4,) x0, y0, x1, y1 in pixels.
        eyes: (2, 2) in pixels; first the eye on the left of the picture, if the face is upright.
        score: 0 .. 1.
    """

    box: np.ndarray
    eyes: np.ndarray
    score: float

    def square(self) -> Square:
        """Return where to look for the mesh."""
        return face_square(self.box[:2], self.box[2:], self.eyes)

    def moved(self, x: float, y: float) -> "Detection":
        """Return the detection in a picture whose left and upper edges lie `x` and `y` pixels farther out."""
        return Detection(self.box + [x, y, x, y], self.eyes + [x, y], self.score)


class Detector:
    """One of the detectors.

    Args:
        path: the .tflite file.
        size: side of its input in pixels.
        strides: cell sizes in pixels, one for each anchor of a cell.
        threads: number of threads.

    Attributes:
        size: as above.
    """

    def __init__(self, path: Path, size: int, strides: tuple[int, ...], threads: int = 2):
        self.size = size
        self._graph, self._anchors = Graph(path, threads=threads), _anchors(size, strides)

    def __call__(self, image: np.ndarray, min_score: float = 0.5) -> list[Detection]:
        """Return the faces in an (H, W, 3) uint8 RGB picture, the surest first."""
        height, width = image.shape[:2]
        square = Square(np.array([width / 2, height / 2]), max(height, width))
        picture = square.cut(image, self.size, cv2.BORDER_CONSTANT).astype(np.float32) / 127.5 - 1
        found = list(self._graph(picture[None]).values())
        values, scores = sorted((value[0] for value in found), key=lambda value: -value.shape[-1])
        scores = expit(scores[:, 0])
        sure = scores >= min_score
        # A box is its centre and size, then the points follow: eyes, nose, mouth, ears.
        rows = values[sure].reshape(-1, 8, 2) / self.size
        rows[:, [0, 2, 3, 4, 5, 6, 7]] += self._anchors[sure, None]
        half = rows[:, 1] / 2
        placed = [square.points(row) for row in np.stack(
            [rows[:, 0] - half, rows[:, 0] + half, rows[:, 2], rows[:, 3]], axis=1)]
        return merge([Detection(row[:2].ravel(), row[2:], float(score))
                      for row, score in zip(placed, scores[sure], strict=True)])


def near_detector(models: Path, threads: int = 2) -> Detector:
    """The detector for faces that fill a good part of the picture."""
    return Detector(models / "face_detection_short_range.tflite", 128, (8, 8, 16, 16, 16, 16, 16, 16), threads)


def far_detector(models: Path, threads: int = 2) -> Detector:
    """The detector that also finds small faces."""
    return Detector(models / "face_detection_full_range_sparse.tflite", 192, (4,), threads)


def merge(found: list[Detection]) -> list[Detection]:
    """Average detections of one face, weighted by their scores; return the faces, the surest first."""
    rest = sorted(found, key=lambda one: -one.score)
    faces = []
    while rest:
        same = [one for one in rest if overlap(one.box, rest[0].box) > SAME_FACE] or rest[:1]
        weights = np.array([one.score for one in same]) / sum(one.score for one in same)
        faces.append(Detection(np.einsum("n,nd->d", weights, [one.box for one in same]),
                               np.einsum("n,npd->pd", weights, [one.eyes for one in same]), rest[0].score))
        rest = [one for one in rest if not any(one is other for other in same)]
    return faces


def _anchors(size: int, strides: tuple[int, ...]) -> np.ndarray:
    """(N, 2): centres of the cells as fractions of the picture. Anchors of equal cells follow each other."""
    parts = []
    for stride in sorted(set(strides)):
        cells = size // stride
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells
        parts.append(np.repeat(centres, strides.count(stride), axis=0))
    return np.concatenate(parts).astype(np.float32)
