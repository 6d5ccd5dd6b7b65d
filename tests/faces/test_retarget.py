"""Retargeting: the driver's motion on the portrait's own face."""

import numpy as np
import pytest

from durian_jax import synthetic
from durian_jax.errors import InputError
from durian_jax.faces import retarget
from durian_jax.faces.topology import GROUPS, RIGID
from tests.helpers.faces import face


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    return (np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
            @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
            @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]))


def posed(points: np.ndarray, turn: np.ndarray, scale: float, shift: tuple) -> np.ndarray:
    centre = points[RIGID].mean(0)
    return scale * (points - centre) @ turn.T + centre + np.array(shift)


def driver() -> np.ndarray:
    calm = face(np.random.default_rng(3)).astype(np.float64)
    frames = []
    for t in range(4):
        frame = calm.copy()
        frame[GROUPS["outer_lips"], 1] += 0.01 * t
        turn = rotation(0.2 * t, 0.1 * t, -0.1 * t)
        frames.append(posed(frame, turn, 1 + 0.05 * t, (0.02 * t, -0.01 * t, 0)))
    return np.stack(frames).astype(np.float32)


@pytest.mark.parametrize("reference", [0, 2])
def test_own_motion_is_returned_exactly(reference):
    motion = driver()
    np.testing.assert_allclose(retarget.retarget(motion, motion[reference], reference), motion, atol=1e-5)


def test_a_still_driver_leaves_the_portrait_unchanged():
    portrait = face(np.random.default_rng(8))
    still = np.repeat(driver()[:1], 3, 0)
    np.testing.assert_allclose(retarget.retarget(still, portrait), np.repeat(portrait[None], 3, 0), atol=1e-6)


def test_the_portrait_keeps_its_shape_and_takes_the_pose():
    portrait = face(np.random.default_rng(8)).astype(np.float64)
    portrait[:, 0] = (portrait[:, 0] - 0.5) * 0.8 + 0.5  # a narrower face
    turn = rotation(0.4, 0.1, 0.2)
    calm = face(np.random.default_rng(3)).astype(np.float64)
    motion = np.stack([calm, posed(calm, turn, 1.1, (0, 0, 0))])
    expected = posed(portrait, turn, 1.1, (0, 0, 0))
    np.testing.assert_allclose(retarget.retarget(motion, portrait)[1], expected, atol=1e-5)


def test_rigid_transform_is_exact():
    points, turn = np.random.default_rng(0).normal(size=(10, 3)), rotation(0.5, -0.3, 1.0)
    scale, found, shift = retarget.rigid_transform(points, 0.7 * points @ turn.T + [1, 2, 3])
    np.testing.assert_allclose(found, turn, atol=1e-12)
    np.testing.assert_allclose([scale, *shift], [0.7, 1, 2, 3], atol=1e-12)


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="found 9"):
        retarget.retarget(driver(), driver()[0], 9)
    with pytest.raises(InputError, match="keypoints"):
        retarget.retarget(driver()[0], driver()[0])


def test_retargeting_matches_the_rendered_motion_of_another_person():
    """Compare with renderings of the portrait in the driver's motion: the error is below 0.4 px at 128 px."""
    errors, shape_differences = [], []
    for index in range(3):
        motion = synthetic.sample_motion("validation", index, 5)
        truth, drive = (synthetic.render(synthetic.sample_person("validation", number), motion, 32).keypoints
                          for number in (index, 100 + index))
        found = retarget.retarget(drive, truth[0])
        errors.append(np.linalg.norm((found - truth)[..., :2], axis=-1).mean() * 128)
        shape_differences.append(np.linalg.norm((drive - truth)[..., :2], axis=-1).mean() * 128)
    assert max(errors) < 0.4 and np.mean(errors) < 0.3 * np.mean(shape_differences)
