"""References moved onto faces: exact shifts, what is unknown, order and blending."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.faces.moved_references import Reference, on_faces
from durian_jax.faces.regions import expression_regions
from durian_jax.faces.warp import keypoint_similarity, warp_image
from durian_jax.synthetic import render, sample_person, still

SIZE = 64
SHIFT = np.float32([8 / SIZE, 0, 0])


@pytest.fixture(scope="module")
def photo():
    return render(sample_person("validation", 0), still(), SIZE)


@pytest.fixture
def source(photo):
    return Reference(photo.frames[0], np.ones((SIZE, SIZE), bool), photo.keypoints[0])


def test_a_reference_in_its_own_pose_is_itself(source):
    pictures, known = on_faces([source], source.keypoints[None], np.zeros_like(source.picture))
    np.testing.assert_allclose(pictures[0].astype(int), source.picture.astype(int), atol=1)
    assert known[0, 1:-1, 1:-1].all()


@pytest.mark.parametrize("pose", [{"yaw": 25.0}, {"pitch": 15.0}, {"roll": 20.0}, {"yaw": -20.0, "scale": 1.1}])
def test_a_reference_turns_into_the_pose_of_another_face(pose):
    """Closer to the truth, inside the face, than a similarity in the plane; and the shape stays its own."""
    person, other = (sample_person("validation", index).without("hat", "glasses") for index in (0, 3))
    photo, truth = render(person, still(), 128), render(person, still(**pose), 128)
    driver = render(other, still(**pose), 128)
    source = Reference(photo.frames[0], np.ones((128, 128), bool), photo.keypoints[0])
    turned, known = on_faces([source], driver.keypoints, np.zeros_like(source.picture))
    flat = warp_image(source.picture, keypoint_similarity(source.keypoints, driver.keypoints[0], 128, 128), "replicate")
    face = expression_regions(truth.keypoints[0], 128, 128) > 0
    error = lambda picture: np.abs(picture.astype(float) - truth.frames[0])[face].mean()
    assert error(turned[0]) < error(flat) + 1 and error(turned[0]) < 0.6 * error(photo.frames[0])
    assert known[0][face].all()


def test_a_reference_moves_with_the_face_and_nothing_comes_in(source):
    blank = np.full_like(source.picture, 7)
    pictures, known = on_faces([source], np.stack([source.keypoints + SHIFT, source.keypoints]), blank)
    np.testing.assert_allclose(pictures[0, :, 9:].astype(int), source.picture[:, 1:-8].astype(int), atol=1)
    assert (pictures[0, :, :8] == 7).all() and not known[0, :, :8].any() and known[0, :, 9:].all() and known[1].all()


def test_hidden_pixels_stay_hidden(source):
    known = source.known.copy()
    known[20:40, 10:30] = False
    pictures, shown = on_faces([replace(source, known=known)], (source.keypoints + SHIFT)[None],
                               np.full_like(source.picture, 7))
    assert (pictures[0, 20:40, 18:38] == 7).all() and not shown[0, 20:40, 18:38].any() and shown[0, 45:, 20:].all()


def test_attributes_cover_each_other_as_they_are_worn_or_blend(source):
    plain = lambda value, kind: replace(source, picture=np.full((SIZE, SIZE, 3), value, np.float32), kind=kind)
    hair, hat = plain(1.0, "hair"), plain(3.0, "hat")
    face, blank = source.keypoints[None], np.zeros((SIZE, SIZE, 3), np.float32)
    for pair in ([hair, hat], [hat, hair]):
        assert (on_faces(pair, face, blank)[0] == 3).all()
    pictures, known = on_faces([hair, hat], face, blank, weights=[0.75, 0.25])
    np.testing.assert_allclose(pictures, 1.5)
    np.testing.assert_allclose(known, 1)
    left = hair.known.copy()
    left[:, SIZE // 2:] = False
    pictures, known = on_faces([replace(hair, known=left), hat], face, blank, weights=[0.75, 0.25])
    np.testing.assert_allclose(pictures[0, 5:-5, 40:60], 3)  # only the hat is known there, with a share of a quarter
    np.testing.assert_allclose(known[0, 5:-5, 40:60], 0.25)
    pictures, known = on_faces([], face, blank)
    assert not pictures.any() and not known.any()
