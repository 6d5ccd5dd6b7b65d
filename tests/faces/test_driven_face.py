"""A face in the pose of another person's, with that person's gaze and mouth."""

import numpy as np
import pytest

from durian_jax.faces.driven_face import driven_faces, head_motion, motion_in_plane, shaped_faces
from durian_jax.faces.retarget import rigid_transform
from durian_jax.faces.topology import GROUPS, POSITION, REGION_KINDS, RIGID, STILL
from durian_jax.faces.warp import similarity
from durian_jax.synthetic import render, sample_motion, sample_person, still


def keypoints(person: int, **values: float) -> np.ndarray:
    """(K, 3) of a drawn person."""
    return render(sample_person("validation", person), still(**values), 32).keypoints[0].astype(np.float64)


def driven(face: np.ndarray, driver: np.ndarray, regions=REGION_KINDS) -> np.ndarray:
    return driven_faces(face, driver[None], head_motion(face, driver[None]), regions)[0]


def part(face: np.ndarray, *names: str) -> np.ndarray:
    return np.concatenate([face[GROUPS[name]] for name in names])


def test_a_face_driven_by_itself_stays():
    face = keypoints(3, yaw=10.0, mouth=0.5)
    np.testing.assert_allclose(driven(face, face), face, atol=1e-9)


@pytest.mark.parametrize("values", [{"mouth": 0.8}, {"gaze_x": 0.8, "gaze_y": -0.5}, {"smile": 0.8},
                                    {"mouth": 0.6, "gaze_x": -0.7}])
def test_gaze_and_mouth_move_as_the_truth_does(values):
    """Even if the driver is somebody else. A smile keeps the mouth's height, which the truth does not."""
    features = lambda face: part(face, "right_iris", "left_iris", "outer_lips", "inner_lips")[:, :2]
    wanted = features(keypoints(3, **values)) - features(keypoints(3))
    for driver in (3, 5, 8, 11):
        face = keypoints(3)
        found = features(driven(face, keypoints(driver, **values))) - features(driven(face, keypoints(driver)))
        assert np.abs(found - wanted).mean() < (0.6 if "smile" in values else 0.35) * np.abs(wanted).mean()


def test_regions_choose_what_follows():
    calm, driver = keypoints(3), keypoints(8, mouth=1.0, gaze_x=1.0)
    rigid, eyes, mouth = (driven(calm, driver, regions) for regions in ((), ("eyes", "nose"), ("mouth",)))
    moved = lambda face, *names: np.abs(part(face - rigid, *names)).max()
    assert moved(eyes, "right_iris", "left_iris") > 0.005 and moved(mouth, "inner_lips") > 0.02
    assert moved(eyes, *(name for name in GROUPS if not name.endswith("iris"))) < 1e-9
    assert moved(mouth, *(name for name in GROUPS if not name.endswith("lips") and name != "contour")) < 1e-9
    chin, forehead = (mouth[POSITION[i], 1] - rigid[POSITION[i], 1] for i in (152, 10))
    assert chin > 0.02 and abs(forehead) < 1e-9  # the chin sinks


def test_a_closed_mouth_opens_by_the_drivers_gap_and_keeps_its_width():
    calm, driver = keypoints(3), keypoints(8, mouth=1.0)
    gap = lambda face: face[POSITION[14], 1] - face[POSITION[13], 1]
    width = lambda face: np.linalg.norm(face[POSITION[61]] - face[POSITION[291]])
    found, truth = driven(calm, driver), keypoints(3, mouth=1.0)
    assert gap(found) == pytest.approx(gap(truth), rel=0.25) and gap(calm) < 0.1 * gap(truth)
    assert width(found) == pytest.approx(width(truth), rel=0.1)


def test_a_drivers_features_get_the_persons_shape_and_place():
    """Nearer to those of the person in the same motion, and the expression stays the driver's."""
    names = ("right_eye", "left_eye", "nose_bridge", "nose_base", "outer_lips", "inner_lips")
    errors = []
    for index in range(12):
        motion = sample_motion("validation", index, 2)
        truth, driver = (render(sample_person("validation", person), motion, 32).keypoints[1:].astype(np.float64)
                         for person in (index, 100 + index))
        face = keypoints(index)
        shaped = shaped_faces(face, driver, head_motion(face, driver))
        errors.append([np.abs(part(found[0] - truth[0], *names)[:, :2]).mean() for found in (shaped, driver)])
    assert np.mean(errors, 0)[0] < 0.6 * np.mean(errors, 0)[1]
    face, driver = keypoints(3), keypoints(8, mouth=1.0, blink=1.0)
    shaped = shaped_faces(face, driver[None], head_motion(face, driver[None]))[0]
    for upper, lower in ((13, 14), (159, 145), (386, 374)):
        gap = lambda points, upper=upper, lower=lower: points[POSITION[lower], 1] - points[POSITION[upper], 1]
        assert gap(shaped) == pytest.approx(gap(driver), abs=0.004)


def test_the_pose_is_closer_to_the_truth_than_that_of_the_rigid_points():
    """The driver's proportions differ; the truth is the pose of the person in the same motion."""
    errors = []
    for index in range(24):
        motion = sample_motion("validation", index, 2)
        face = keypoints(index)
        truth, driver = (render(sample_person("validation", person), motion, 32).keypoints[1:].astype(np.float64)
                         for person in (index, 100 + index))
        motions = (rigid_transform(face[RIGID], truth[:, RIGID]), head_motion(face, driver),
                   rigid_transform(face[RIGID], driver[:, RIGID]))
        places = [(scale[:, None, None] * (face @ rotation.swapaxes(1, 2)) + shift)[..., :2]
                  for scale, rotation, shift in motions]
        errors.append([[np.abs(place - places[0]).mean(), abs(np.log(scale / motions[0][0]))[0]]
                       for place, (scale, *_) in zip(places[1:], motions[1:], strict=True)])
    ours, rigid = np.mean(errors, 0)
    assert ours[0] < 0.85 * rigid[0]
    assert ours[1] < 0.5 * rigid[1], "errors of the size"


def test_wrong_depth_and_closed_corners_do_no_harm():
    """Depth corrects a size by a quarter at most; where an eye's corners meet, the iris stays near it."""
    face, driver = keypoints(3), keypoints(8)
    for depth in (0.0, -1.0, 3.0):
        flat = (driver * (1, 1, depth))[None]
        plain = rigid_transform(face[STILL], flat[:, STILL])[0]
        assert 0.799 < head_motion(face, flat)[0] / plain < 1.251
    driver[POSITION[33]] = driver[POSITION[133]]
    moved = driven(face, driver, ("eyes",)) - driven(face, driver, ())
    assert np.isfinite(moved).all() and np.abs(moved).max() < np.linalg.norm(face[POSITION[33]] - face[POSITION[133]])


def test_a_motion_in_the_plane_gives_size_roll_and_place_even_to_a_turned_head():
    """A similarity of the points in the picture takes a turned head for a small one."""
    person, other = keypoints(3, roll=10.0, shift_x=0.05), keypoints(8, yaw=25.0, scale=1.1)
    move = motion_in_plane(other, person, 100)
    assert np.hypot(*move[:, 0]) == pytest.approx(1 / 1.1, rel=0.03)
    assert np.degrees(np.arctan2(move[1, 0], move[0, 0])) == pytest.approx(10, abs=2.5)
    eyes = [POSITION[i] for i in (33, 133, 263, 362)]
    np.testing.assert_allclose(100 * other[eyes, :2].mean(0) @ move[:, :2].T + move[:, 2],
                               100 * person[eyes, :2].mean(0), atol=2)
    errors = []
    for index in range(12):
        turned, frontal = keypoints(index, yaw=25.0), keypoints(20 + index)
        errors.append([abs(np.log(np.hypot(*found[:, 0]))) for found in (
            motion_in_plane(turned, frontal, 100), similarity(turned[RIGID], frontal[RIGID]))])
    assert np.mean(errors, 0)[0] < 0.5 * np.mean(errors, 0)[1]
    np.testing.assert_allclose(motion_in_plane(person, person, 100), [[1, 0, 0], [0, 1, 0]], atol=1e-9)
