"""Faces and persons in real pictures: MediaPipe's published models, run by LiteRT in this process.

These are the attention mesh, two face detectors and the person segmentation of MediaPipe 0.10.21 (Apache-2.0).
What comes before and after the models follows its graphs. `benchmarks/annotator.py` compares the results.
"""

import cv2
import numpy as np

from durian_jax.annotator.faces import Face, FaceFinder
from durian_jax.annotator.files import find_models
from durian_jax.annotator.graph import Graph

__all__ = ["Annotator"]

# Number of frames of a video between two searches for further faces.
_LOOK_EVERY = 10
# A picture is turned if this raises the score of its best face by more than this value; see `Annotator.turn`.
_CLEARLY_BETTER = 0.05
# What an upright face adds to its score.
_UPRIGHT = 0.2
# Side of the input of the person segmentation in pixels.
_PERSON = 256


class Annotator:
    """MediaPipe's models, loaded once for any number of pictures and videos.

    Args:
        threads: number of threads.

    Raises:
        InputError: the model files are missing or damaged.
    """

    def __init__(self, threads: int = 2):
        models = find_models()
        self._finder = FaceFinder(models, threads)
        self._person = Graph(models / "selfie_segmentation.tflite", threads=threads)
        self._followed: list[Face] = []
        self._frame = 0

    def faces(self, image: np.ndarray) -> np.ndarray:
        """Return the meshes of all faces in a photo, the largest first.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (n, 478, 3) float32: x and y in pixels, depth on the same scale; n may be 0.
        """
        return _stacked(self._finder.search(image))

    def follow(self, image: np.ndarray) -> np.ndarray:
        """Return the meshes of all faces in the next frame of a video; shape and units as in `faces`.

        Faces are followed from the previous frame. Without one, and in every tenth frame, the whole frame is searched.
        """
        look = not self._followed or self._frame % _LOOK_EVERY == 0
        self._followed = self._finder.follow(image, self._followed, look)
        self._frame += 1
        return _stacked(self._followed)

    def reset(self) -> None:
        """Forget the followed faces; call this before the first frame of another video."""
        self._followed, self._frame = [], 0

    def turn(self, image: np.ndarray) -> int:
        """Return how many quarter turns to the left make the heads in a picture upright, 0 .. 3.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        scores = [max((face.score + _UPRIGHT * float(np.cos(face.roll)) for face in self._finder.search(turned)),
                      default=0.0)
                  for turned in (np.ascontiguousarray(np.rot90(image, turns)) for turns in range(4))]
        best = int(np.argmax(scores))
        return best if scores[best] > scores[0] + _CLEARLY_BETTER else 0

    def person(self, image: np.ndarray) -> np.ndarray:
        """Return (H, W) uint8 confidences 0..255 that each pixel of an (H, W, 3) uint8 picture shows a person."""
        height, width = image.shape[:2]
        # The model is sensitive to how pictures are reduced, so this is MediaPipe's way: corners lie on corners.
        scale = np.array([[_PERSON / width, 0, 0], [0, _PERSON / height, 0]])
        small = cv2.warpAffine(image, scale, (_PERSON, _PERSON), flags=cv2.INTER_LINEAR)
        (mask,) = self._person((small.astype(np.float32) / 255)[None]).values()
        mask = cv2.resize(mask[0, :, :, 0], image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.rint(np.clip(mask, 0, 1) * 255).astype(np.uint8)


def _stacked(faces: list[Face]) -> np.ndarray:
    return np.stack([face.points for face in faces]) if faces else np.empty((0, 478, 3), np.float32)
