"""The aligned face crop that face recognition networks expect (ArcFace, arXiv 1801.07698)."""

import numpy as np

from durian_jax.faces.topology import POSITION
from durian_jax.faces.warp import similarity, warp_image

# Side of the crop in pixels, and the positions of ArcFace's five alignment points in it: the eyes (the
# one on the picture's left first), the tip of the nose, the corners of the mouth.
FACE_SIZE = 112
_PLACES = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
_POINTS = np.array([POSITION[i] for i in (468, 473, 4, 61, 291)])


def face_crop(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Crop the face, upright and aligned to ArcFace's five points.

    Args:
        image: (H, W, 3) uint8.
        keypoints: (K, 3) normalised to the picture.

    Returns:
        (112, 112, 3) uint8; black outside the picture.
    """
    height, width = image.shape[:2]
    matrix = similarity(keypoints[_POINTS, :2] * (width, height), _PLACES)
    return warp_image(image, matrix, size=(FACE_SIZE, FACE_SIZE))
