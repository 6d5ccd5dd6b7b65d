"""References moved onto faces: exact shifts, what is unknown, order and blending."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from durian_jax.faces import moved_references
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.moved_references import Reference, driver_on_face, head_rings, on_faces
from durian_jax.faces.regions import driven_region, expression_regions
from durian_jax.faces.topology import GROUPS, POSITION
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


def test_rings_around_the_head_move_hair_closer_to_the_truth(monkeypatch):
    def error_around_faces() -> float:
        errors = []
        for index, pose in enumerate([{"yaw": 25.0}, {"yaw": -25.0}, {"pitch": 15.0}, {"yaw": 15.0, "roll": 10.0}]):
            person = sample_person("validation", index, require=("hair",)).without("hat")
            photo, truth = render(person, still(), 128), render(person, still(**pose), 128)
            source = Reference(photo.frames[0], np.ones((128, 128), bool), photo.keypoints[0])
            turned, _ = on_faces([source], truth.keypoints, np.zeros_like(source.picture))
            hair = truth.masks[0] & attribute_bit("hair") > 0
            errors.append(((turned[0].astype(float) - truth.frames[0]) ** 2)[hair].mean())
        return np.mean(errors)

    with_rings = error_around_faces()
    monkeypatch.setattr(moved_references, "head_rings", lambda face, scale, *_: (
        np.zeros((0, 2)), np.zeros((len(scale), 0, 2))))
    assert with_rings < 0.8 * error_around_faces()


def test_rings_follow_scale_and_roll_and_their_centre_follows_the_head(source):
    def turn(axis: int, degrees: float) -> np.ndarray:
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return np.insert(np.insert(np.array([[cos, -sin], [sin, cos]]), axis, 0, 0), axis, np.eye(3)[axis], 1)

    face, ears = source.keypoints, source.keypoints[[POSITION[234], POSITION[454]]].mean(0)
    rotations = np.stack([np.eye(3), turn(2, 20), turn(1, 20)])
    shift = np.array([[0, 0, 0], [0.1, 0.2, 0], ears - turn(1, 20) @ ears])
    ring, moved = head_rings(face, np.array([1.0, 1.5, 1.0]), rotations, shift)
    np.testing.assert_allclose(moved[0], ring, atol=1e-6)
    np.testing.assert_allclose(moved[1], 1.5 * ring @ turn(2, 20)[:2, :2].T + (0.1, 0.2), atol=1e-6)
    turned = face @ rotations[2].T + shift[2] - face
    assert abs(turned[POSITION[4], 0]) > 0.05  # the nose moves far, the ring hardly, and as a whole
    np.testing.assert_allclose(moved[2] - ring, np.broadcast_to((moved[2] - ring)[0], ring.shape), atol=1e-6)
    assert np.abs(moved[2] - ring).max() < 0.02


def test_gaze_and_mouth_of_the_picture_are_the_drivers():
    """In eyes and mouth the source comes closer to the truth. What is worn follows the mouth only."""
    motion = {"mouth": 0.7, "gaze_x": 0.8, "yaw": 8.0}
    person, other = (sample_person("validation", index).without("hat", "glasses") for index in (0, 3))
    photo, truth, driver = (render(*shown, 128) for shown in (
        (person, still()), (person, still(**motion)), (other, still(**motion))))
    source = Reference(photo.frames[0], np.ones((128, 128), bool), photo.keypoints[0])
    blank = np.zeros_like(source.picture)
    moved = {regions: on_faces([source], driver.keypoints, blank, regions=regions)[0][0].astype(float)
             for regions in ((), ("eyes",), ("mouth",))}
    for kind in ("eyes", "mouth"):
        region = driven_region(truth.keypoints[0], 128, 128, (kind,))
        error = lambda picture, region=region: ((picture - truth.frames[0])[region] ** 2).mean()
        assert error(moved[kind,]) < 0.75 * error(moved[()])
    worn = replace(source, kind="beard")
    follows = lambda *regions: on_faces([worn], driver.keypoints, blank, regions=regions)[0][0]
    np.testing.assert_array_equal(follows("eyes"), follows())
    np.testing.assert_array_equal(follows("eyes", "mouth"), moved["mouth",])


def test_a_drivers_regions_lie_on_the_face_that_they_drive():
    """Teeth and tongue are drawn alike for all people, so inside the lips the driver's pixels become the truth's."""
    errors = []
    for index in range(4):
        person, other = (sample_person("validation", number).without("hat", "glasses", "beard")
                         for number in (index, 10 + index))
        face = render(person, still(), 128).keypoints[0]
        truth, driver = (render(shown, still(mouth=0.9, yaw=10.0), 128) for shown in (person, other))
        region = driven_region(driver.keypoints[0], 128, 128)[None]
        moved, known = driver_on_face(driver.frames, region, driver.keypoints, face)
        assert not moved[0][~known[0]].any() and 0.6 < known.sum() / region.sum() < 1.7
        lips = np.rint(truth.keypoints[0][GROUPS["inner_lips"], :2] * 128 * 16).astype(np.int32)
        inside = cv2.fillPoly(np.zeros((128, 128), np.uint8), [lips], 1, shift=4) > 0
        assert known[0][inside].all()
        errors.append([((picture[0].astype(float) - truth.frames[0])[inside] ** 2).mean()
                       for picture in (moved, driver.frames)])
    assert np.mean(errors, 0)[0] < 0.35 * np.mean(errors, 0)[1]


def test_a_driver_on_its_own_face_stays(photo):
    region = driven_region(photo.keypoints[0], SIZE, SIZE)[None]
    for pictures in (photo.frames, photo.frames.astype(np.float32)):
        moved, known = driver_on_face(pictures, region, photo.keypoints, photo.keypoints[0])
        assert moved.dtype == pictures.dtype
        np.testing.assert_array_equal(known, region)
        np.testing.assert_allclose(moved[known].astype(float), pictures[known].astype(float), atol=1)


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
    pictures, known = on_faces([hair, hat], face, blank, weights=np.float32([[0.75, 0.25]]))
    np.testing.assert_allclose(pictures, 1.5)
    np.testing.assert_allclose(known, 1)
    left = hair.known.copy()
    left[:, SIZE // 2:] = False
    pictures, known = on_faces([replace(hair, known=left), hat], face, blank, weights=np.float32([[0.75, 0.25]]))
    np.testing.assert_allclose(pictures[0, 5:-5, 40:60], 3)  # only the hat is known there, with a share of a quarter
    np.testing.assert_allclose(known[0, 5:-5, 40:60], 0.25)
    rows = np.broadcast_to(np.arange(3 * SIZE, dtype=np.uint8).reshape(SIZE, 1, 3), (SIZE, SIZE, 3)).copy()
    pair = [replace(hair, picture=rows), replace(hat, picture=rows, known=np.zeros((SIZE, SIZE), bool))]
    exact, _ = on_faces(pair[:1], face, np.zeros_like(rows))  # bytes are rounded, not cut
    np.testing.assert_array_equal(on_faces(pair, face, np.zeros_like(rows), weights=np.float32([[0.3, 0.7]]))[0], exact)
    composed = on_faces([hair, hat, hat], face, blank, weights=np.float32([[-1, 0.75, 0.25]]))[0]
    assert (composed == 3).all(), "the blended hats cover the hair"
    under = on_faces([hair, replace(hat, known=left), hat], face, blank, weights=np.float32([[-1, 0.75, 0.25]]))
    np.testing.assert_allclose(under[0][0, 5:-5, 40:60], 0.25 * 3 + 0.75 * 1)
    np.testing.assert_allclose(under[1], 1)
    two = on_faces([hair, hat], np.repeat(face, 2, 0), blank, weights=np.float32([[1, 0], [0.5, 0.5]]))[0]
    np.testing.assert_allclose(two[:, 20, 20, 0], [1, 2])
    pictures, known = on_faces([], face, blank)
    assert not pictures.any() and not known.any()
