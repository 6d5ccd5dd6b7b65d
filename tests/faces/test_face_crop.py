"""Face crops: the eyes lie at ArcFace's positions, also in a rolled head."""

import numpy as np

from durian_jax.faces.face_crop import face_crop
from durian_jax.faces.topology import POSITION
from durian_jax.synthetic import render, sample_person, still


def test_the_crop_is_upright_and_aligned():
    person = sample_person("benchmark", 0)
    straight, turned = (render(person, still(roll=roll), size=256) for roll in (0.0, 15.0))
    for photo in (straight, turned):
        image, keypoints = np.zeros_like(photo.frames[0]), photo.keypoints[0]
        for point, colour in ((468, (255, 0, 0)), (473, (0, 255, 0))):
            x, y = (keypoints[POSITION[point], :2] * 256).astype(int)
            image[y - 3:y + 4, x - 3:x + 4] = colour
        crop = face_crop(image, keypoints)
        assert crop.shape == (112, 112, 3) and crop.dtype == np.uint8
        for channel, place in ((0, (38.3, 51.7)), (1, (73.5, 51.5))):
            y, x = (axis.mean() for axis in np.nonzero(crop[..., channel] > 128))
            assert abs(x - place[0]) < 6 and abs(y - place[1]) < 6
