"""Faces, meshes and persons in drawn and in real pictures."""

import numpy as np
import pytest

from durian_jax.annotator.detector import Detection, merge
from durian_jax.annotator.graph import Graph
from durian_jax.annotator.places import Square, face_square, overlap
from durian_jax.faces.topology import MEDIAPIPE_INDICES
from durian_jax.prepare.crop import face_centre, face_height
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import iterate_video, read_image


def test_points_come_back_out_of_a_square():
    square = Square(np.array([50.0, 40.0]), 20.0, np.pi / 2)
    placed = square.points(np.float32([[0, 0, 0.1], [1, 0, 0], [0.5, 0.5, 0]]))
    np.testing.assert_allclose(placed, [[60, 30, 2], [60, 50, 0], [50, 40, 0]], atol=1e-5)
    image = np.zeros((80, 100, 3), np.uint8)
    image[30:34, 56:60] = 255  # The square's first corner.
    assert square.cut(image, 20)[:4, :4].mean() > 150 and square.cut(image, 20)[8:, 8:].max() == 0
    upright = face_square(np.array([10.0, 20.0]), np.array([30.0, 60.0]), np.array([[15.0, 30.0], [15.0, 35.0]]))
    assert upright.side == 60 and upright.angle == pytest.approx(np.pi / 2)


def test_detections_of_one_face_are_averaged():
    eyes = np.zeros((2, 2))
    found = [Detection(np.array([0.0, 0, 10, 10]), eyes, 0.6), Detection(np.array([1.0, 0, 11, 10]), eyes, 0.3),
             Detection(np.array([40.0, 0, 50, 10]), eyes, 0.9)]
    far, near = merge(found)
    assert far.box[0] == 40 and near.score == 0.6 and near.box[0] == pytest.approx(1 / 3)
    assert overlap(np.array([0.0, 0, 2, 2]), np.array([1.0, 1, 3, 3])) == pytest.approx(1 / 7)


def test_a_cut_model_gives_what_the_whole_one_gives(annotator):
    """Parts of ordinary operators around operators of our own equal the model in one piece."""
    from durian_jax.annotator.files import find_models

    path = find_models() / "face_detection_short_range.tflite"
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 128, 128, 3)).astype(np.float32)
    whole, cut = Graph(path)(picture), Graph(path, {"no such operator": lambda *_: None})(picture)
    assert whole.keys() == cut.keys()
    for name in whole:
        np.testing.assert_allclose(whole[name], cut[name], atol=1e-5)


def test_procedural_faces_are_found(annotator):
    """Users pass the demo's pictures to `durian animate`."""
    errors = []
    for index in range(4):
        clip = render(sample_person("validation", index), sample_motion("validation", index, 1), size=512)
        (mesh,) = annotator.faces(clip.frames[0])
        away = mesh[MEDIAPIPE_INDICES, :2] / 512 - clip.keypoints[0, :, :2]
        errors.append(np.linalg.norm(away, axis=-1).mean())
    assert np.mean(errors) < 0.04


def test_the_person_is_told_from_the_background(annotator, portraits):
    image = read_image(portraits / "images" / "lp_d8.jpg")
    person = annotator.person(image)
    assert person.shape == image.shape[:2] and person.dtype == np.uint8
    x, y = face_centre(annotator.faces(image)[0]).astype(int)
    assert person[y - 50:y + 50, x - 50:x + 50].min() > 240 and person[:40, :40].max() < 30


def test_followed_faces_are_those_of_single_pictures(annotator):
    clip = render(sample_person("validation", 2), sample_motion("validation", 2, 12), size=256)
    annotator.reset()
    for frame in clip.frames:
        (followed,), (alone,) = annotator.follow(frame), annotator.faces(frame)
        assert np.linalg.norm((followed - alone)[:, :2], axis=-1).mean() < 0.06 * face_height(alone)
    annotator.reset()
    assert len(annotator.follow(np.zeros_like(clip.frames[0]))) == 0


def test_pictures_are_turned_upright(annotator, portraits):
    for name in ("images/lp_d9.jpg", "images/lp_s5.jpg", "cases/portrait.jpg"):
        image = read_image(portraits / name)
        assert [annotator.turn(np.rot90(image, turns).copy()) for turns in range(4)] == [0, 3, 2, 1], name
    assert annotator.turn(read_image(portraits / "cases" / "upsidedown.jpg")) == 2
    assert annotator.turn(np.zeros((64, 64, 3), np.uint8)) == 0


def test_all_faces_of_a_photo(annotator, portraits):
    six = annotator.faces(read_image(portraits / "cases" / "sixfaces.jpg"))
    assert len(six) == 6 and sorted(face_centre(six)[:, 0] // 100) == [1, 3, 5, 7, 9, 11]
    (small,) = annotator.faces(read_image(portraits / "cases" / "smallface.jpg"))
    assert 140 < face_height(small) < 170
    # Lit windows and a face that stands on its head are none.
    assert len(annotator.faces(read_image(portraits / "cases" / "dark_short_hair.jpg"))) == 1
    assert not len(annotator.faces(read_image(portraits / "cases" / "upsidedown.jpg")))


def test_small_faces_are_found_from_48_pixels_on(annotator, portraits):
    import cv2

    image = read_image(portraits / "images" / "lp_d8.jpg")
    height = float(face_height(annotator.faces(image))[0])
    photo = np.full((3000, 4000, 3), 120, np.uint8)
    small = cv2.resize(image, None, fx=52 / height, fy=52 / height, interpolation=cv2.INTER_AREA)
    photo[2200:2200 + len(small), 3100:3100 + small.shape[1]] = small
    (found,) = annotator.faces(photo)
    assert 48 <= face_height(found) < 58


def test_one_woman_is_one_face(annotator, portraits):
    annotator.reset()
    assert {len(annotator.follow(frame)) for frame in iterate_video(portraits / "cases" / "phantom.mp4")} == {1}
