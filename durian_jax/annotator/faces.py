"""Find all faces of a photo, and follow faces from frame to frame of a video."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from durian_jax.annotator.detector import SAME_FACE, Detection, far_detector, merge, near_detector
from durian_jax.annotator.mesh import FaceMesh, next_square
from durian_jax.annotator.places import Square, overlap

# The far detector finds faces that are higher than 4 % of its picture. Photos are also searched tile by tile, so that
# faces from 40 pixels on are found.
_TILE, _TILE_OVERLAP = 640, 160
# Candidates need this score. Then a closer look detects them again, in a square that is larger than their box by the
# second value, and the mesh has its own opinion. The mean of the three scores decides. Measured on real pictures: faces
# have 0.80 or more, with a mask over the mouth 0.75; lit windows and upside-down faces have 0.67 or less.
_CANDIDATE, _AROUND, _FACE = 0.3, 2.0, 0.71
# Meshes of one face overlap by more than the first value. A followed one that overlaps with a detected one by less than
# the second has lost its face.
_SAME, _AGREES = 0.3, 0.6
# A face is followed while the mesh has this score.
_FOLLOWED = 0.5


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        points: (478, 3) float32: x and y in pixels, depth on the same scale.
        score: how sure the detectors and the mesh were when it was detected, 0 .. 1.
    """

    points: np.ndarray
    score: float

    @property
    def box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1 of the mesh in pixels."""
        return np.concatenate([self.points[:, :2].min(0), self.points[:, :2].max(0)])

    @property
    def height(self) -> float:
        """Height of the mesh in pixels."""
        return float(np.ptp(self.points[:, 1]))

    @property
    def roll(self) -> float:
        """Rotation in the picture in radians; 0 is upright."""
        return next_square(self.points).angle


class FaceFinder:
    """Detectors and mesh.

    Args:
        models: folder of the model files.
        threads: number of threads.
    """

    def __init__(self, models: Path, threads: int = 2):
        self._near, self._far = near_detector(models, threads), far_detector(models, threads)
        self._mesh = FaceMesh(models, threads)

    def search(self, image: np.ndarray) -> list[Face]:
        """Return the faces of an (H, W, 3) uint8 RGB photo, the largest first."""
        found = self._candidates(image)
        if max(image.shape[:2]) > _TILE:
            for left, top in _tiles(image.shape):
                tile = np.ascontiguousarray(image[top:top + _TILE, left:left + _TILE])
                found += [one.moved(left, top) for one in self._far(tile, _CANDIDATE)]
        return sorted(self._detected(image, found), key=lambda face: -face.height)

    def follow(self, image: np.ndarray, before: list[Face], look: bool) -> list[Face]:
        """Return the faces of the next frame of a video.

        Args:
            image: the frame, (H, W, 3) uint8 RGB.
            before: the faces of the previous frame, which are followed.
            look: look for further faces.
        """
        faces: list[Face] = []
        for face in before:
            points, sure = self._mesh(image, next_square(face.points))
            if sure >= _FOLLOWED:
                faces = _with(faces, Face(points, face.score))
        if look:
            for new in self._detected(image, self._candidates(image)):
                overlaps = [overlap(new.box, face.box) for face in faces]
                if max(overlaps, default=0.0) < _AGREES:
                    faces = [face for face, shared in zip(faces, overlaps, strict=True) if shared <= _SAME] + [new]
        return faces

    def _candidates(self, image: np.ndarray) -> list[Detection]:
        return self._near(image, _CANDIDATE) + self._far(image, _CANDIDATE)

    def _detected(self, image: np.ndarray, found: list[Detection]) -> list[Face]:
        """Return the faces among candidates, the surest first."""
        faces: list[Face] = []
        for one in merge(found):
            points, sure = self._mesh(image, one.square())
            score = (one.score + self._again(image, one) + sure) / 3
            if score >= _FACE:
                faces = _with(faces, Face(points, score))
        return faces

    def _again(self, image: np.ndarray, one: Detection) -> float:
        """Return the score of a candidate in a closer look; 0 if it is not detected there."""
        centre, side = (one.box[:2] + one.box[2:]) / 2, float(np.max(one.box[2:] - one.box[:2]))
        around = Square(centre, _AROUND * side)
        close = self._near(around.cut(image, self._near.size), _CANDIDATE)
        boxes = [around.points(again.box.reshape(2, 2) / self._near.size).ravel() for again in close]
        return max((again.score for again, box in zip(close, boxes, strict=True)
                    if overlap(box, one.box) > SAME_FACE), default=0.0)


def _with(faces: list[Face], new: Face) -> list[Face]:
    """The faces and a new one, unless it is one of them."""
    return faces if any(overlap(new.box, face.box) > _SAME for face in faces) else [*faces, new]


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Left and top corners of tiles that cover a picture."""
    step = _TILE - _TILE_OVERLAP
    for top in range(0, max(shape[0] - _TILE_OVERLAP, 1), step):
        for left in range(0, max(shape[1] - _TILE_OVERLAP, 1), step):
            yield max(min(left, shape[1] - _TILE), 0), max(min(top, shape[0] - _TILE), 0)
