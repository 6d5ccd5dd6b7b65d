"""The picture of a face that networks for face recognition expect (ArcFace, arXiv 1801.07698)."""

import numpy as np

from durian_jax.faces.topology import POSITION
from durian_jax.faces.warp import similarity, warp_image

# Side of the picture in pixels, and where ArcFace's training data has its five points in it: the
# eyes, left in the picture first, the tip of the nose, the corners of the mouth.
FACE_SIZE = 112
_PLACES = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
_POINTS = np.array([POSITION[i] for i in (468, 473, 4, 61, 291)])


def face_crop(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The face, upright and in its place.

    Args:
        image: (H, W, 3) uint8.
        keypoints: (K, 3) in units of the picture.

    Returns:
        (112, 112, 3) uint8; black where the picture ends.
    """
    height, width = image.shape[:2]
    matrix = similarity(keypoints[_POINTS, :2] * (width, height), _PLACES)
    return warp_image(image, matrix, size=(FACE_SIZE, FACE_SIZE))
