"""Shapes of faces: without pose and expression, and from one person to another."""

import numpy as np
import pytest

from durian_jax.faces import face_shape as module
from durian_jax.faces.face_shape import calm_frame, face_shape, moved_shape, shape_difference
from durian_jax.faces.topology import GROUPS, POSITION
from durian_jax.synthetic import render, sample_motion, sample_person, still


def keypoints(person: int, frames: int = 6, **values: float) -> np.ndarray:
    motion = still(**values) if values else sample_motion("validation", person, frames, 6.0)
    return render(sample_person("validation", person), motion, 32).keypoints


def gap(points: np.ndarray, upper: int, lower: int) -> np.ndarray:
    return np.linalg.norm(points[..., POSITION[upper], :] - points[..., POSITION[lower], :], axis=-1)


def test_the_calm_frame_is_frontal_with_open_eyes():
    frames = np.concatenate([keypoints(3, yaw=20.0), keypoints(3, blink=1.0), keypoints(3, yaw=2.0),
                             keypoints(3, pitch=-15.0)])
    assert calm_frame(frames) == 2


def test_a_shape_does_not_depend_on_the_pose():
    straight, turned = (face_shape(keypoints(3, **pose)) for pose in ({"yaw": 0.0}, {"yaw": 20.0, "roll": -10.0}))
    np.testing.assert_allclose(straight[:, :2], turned[:, :2], atol=2e-3)  # irises are drawn flat in any pose


def test_a_face_moved_by_the_difference_has_the_other_shape():
    """Brows and nose are the other person's, in the pose of every frame, up to a similarity."""
    own, other = (keypoints(number, yaw=0.0) for number in (3, 8))
    mine, theirs = face_shape(own), face_shape(other)
    moved = face_shape(moved_shape(own, mine, shape_difference(mine, theirs)))
    points = np.concatenate([np.arange(GROUPS[name].start, GROUPS[name].stop)
                             for name in ("right_brow", "left_brow", "nose_bridge", "nose_base", "right_eye")])

    def away(shape: np.ndarray) -> float:
        scale, rotation, shift = module.rigid_transform(theirs[module.RIGID], shape[module.RIGID])
        return float(np.abs(scale * theirs @ rotation.T + shift - shape)[points, :2].mean())
    assert away(moved) < 0.25 * away(mine)


def test_no_difference_changes_nothing():
    frames = keypoints(3)
    shape = face_shape(frames)
    np.testing.assert_allclose(shape_difference(shape, shape), 0, atol=1e-9)
    np.testing.assert_allclose(moved_shape(frames, shape, np.zeros_like(shape)), frames, atol=1e-7)


@pytest.mark.parametrize("expression", [{"mouth": 1.0}, {"smile": 1.0}, {"blink": 1.0}])
def test_the_other_persons_expression_stays_out(expression):
    """A face that always smiles gives no smile."""
    calm, strange = (face_shape(keypoints(8, **values)) for values in ({"yaw": 0.0}, expression))
    frames = keypoints(3, yaw=0.0)
    shape = face_shape(frames)
    first, second = (moved_shape(frames, shape, shape_difference(shape, other)) for other in (calm, strange))
    lids_and_lips = ((159, 145), (386, 374), (13, 14))
    for upper, lower in lids_and_lips:
        np.testing.assert_allclose(gap(first, upper, lower), gap(frames, upper, lower), atol=1e-3)
        np.testing.assert_allclose(gap(second, upper, lower), gap(frames, upper, lower), atol=1e-3)
    # How far the corners of the mouth hang below its middle.
    hang = [(x[0, POSITION[61], 1] + x[0, POSITION[291], 1]) / 2 - (x[0, POSITION[13], 1] + x[0, POSITION[14], 1]) / 2
            for x in (frames, first, second)]
    np.testing.assert_allclose(hang, hang[0], atol=2e-3)


def test_irises_keep_their_places_in_the_eyes():
    frames = keypoints(3, gaze_x=0.8)
    shape = face_shape(frames)
    moved = moved_shape(frames, shape, shape_difference(shape, face_shape(keypoints(8, gaze_x=-0.8))))
    for side in ("right", "left"):
        eye, iris = (slice(GROUPS[f"{side}_{part}"].start, GROUPS[f"{side}_{part}"].stop) for part in ("eye", "iris"))
        before, after = (x[0, iris].mean(0) - x[0, eye].mean(0) for x in (frames, moved))
        np.testing.assert_allclose(after, before, atol=1e-4)
