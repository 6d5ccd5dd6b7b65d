"""Faces: drawing, warps, mask expansion, retargeting."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax import synthetic
from durian_jax.errors import InputError
from durian_jax.faces import draw, retarget, warp
from durian_jax.faces import fill_region as expand
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.topology import GROUPS, RIGID, K
from tests.helpers.faces import face


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    return (np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
            @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
            @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]))


def posed(points: np.ndarray, turn: np.ndarray, scale: float, shift: tuple) -> np.ndarray:
    centre = points[RIGID].mean(0)
    return scale * (points - centre) @ turn.T + centre + np.array(shift)


def test_importing_faces_does_not_import_jax():
    code = ("import sys, durian_jax.faces.draw, durian_jax.faces.warp, durian_jax.faces.fill_region, "
            "durian_jax.faces.retarget; sys.exit('jax' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- drawing ------------------------------------------------------------------------------------------

def test_numpy_and_jax_draw_the_same():
    points = np.stack([face(np.random.default_rng(i)) for i in range(2)])
    drawn = draw.keypoint_image(points, 48, 64)
    on_device = jax.jit(lambda p: draw.keypoint_image(p, 48, 64, jnp))(points)
    assert drawn.shape == (2, 48, 64, 3) and drawn.dtype == np.float32
    assert drawn.min() >= 0 and drawn.max() <= 1
    np.testing.assert_allclose(drawn, on_device, atol=1e-5)
    np.testing.assert_array_equal(drawn[1], draw.keypoint_image(points[1], 48, 64))


def test_a_line_has_its_colour_its_width_and_its_place():
    points = np.full((K, 3), -5.0)  # everything else far outside
    bridge = np.arange(K)[GROUPS["nose_bridge"]]
    points[bridge, 0], points[bridge, 1] = 0.5, np.linspace(0.35, 0.65, len(bridge))
    picture = draw.keypoint_image(points, 128, 128)
    middle = picture[64]
    np.testing.assert_allclose(middle[63] / draw.COLOURS["nose_bridge"], 1 - np.exp(-2.5 * np.exp(-0.5 * (
        0.5 / 0.768) ** 2)), atol=0.03)
    np.testing.assert_allclose(middle[63], middle[64], atol=1e-5)  # x = 64 lies between pixels 63 and 64
    assert middle[64 + 6].max() < 0.01 and picture[10].max() < 0.01


def test_irises_are_filled():
    points = face(np.random.default_rng(0))
    iris = points[GROUPS["right_iris"]]
    x, y = (iris[0, :2] * 256).astype(int)
    np.testing.assert_allclose(draw.keypoint_image(points, 256, 256)[y, x], 1.0, atol=0.1)


# --- warps --------------------------------------------------------------------------------------------

def test_similarity_is_exact_and_refuses_to_mirror():
    source = np.random.default_rng(0).normal(size=(9, 2))
    cos, sin = 1.2 * np.cos(0.4), 1.2 * np.sin(0.4)
    matrix = np.array([[cos, -sin, 3.0], [sin, cos, -2.0]])
    target = source @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(warp.similarity(source, target), matrix, atol=1e-12)
    assert np.linalg.det(warp.similarity(source, source * [-1, 1])[:, :2]) >= 0


def test_warping_by_whole_pixels_only_moves_pixels():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    moved = warp.warp_image(image, np.array([[1, 0, 4], [0, 1, 3.0]]))
    np.testing.assert_array_equal(moved[3:, 4:], image[:-3, :-4])
    assert not moved[:3].any()
    # Doubling about the corner: with positions counted from the corner, 2x2 blocks keep their mean place.
    double = warp.warp_image(image, np.array([[2.0, 0, 0], [0, 2.0, 0]]), "replicate", size=(40, 60))
    np.testing.assert_allclose(double.reshape(20, 2, 30, 2, 3).mean((1, 3))[2:-2, 2:-2].mean(),
                               image[2:-2, 2:-2].mean(), rtol=0.02)


def test_spline_interpolates_and_reproduces_affine_maps():
    rng = np.random.default_rng(1)
    source, target, elsewhere = rng.normal(size=(12, 2)), rng.normal(size=(12, 2)), rng.normal(size=(5, 2))
    np.testing.assert_allclose(warp.spline(source, target)(source), target, atol=1e-8)
    linear, shift = rng.normal(size=(2, 2)), rng.normal(size=2)
    np.testing.assert_allclose(warp.spline(source, source @ linear.T + shift)(elsewhere),
                               elsewhere @ linear.T + shift, atol=1e-7)


def test_align_follows_the_face():
    points = face(np.random.default_rng(0))
    target = warp.transform_keypoints(points, np.array([[0.9, 0, 16.0], [0, 0.9, 4.0]]), 128, 128)
    y, x = np.mgrid[:128, :128]
    image = np.repeat((2 * x).astype(np.uint8)[..., None], 3, 2)
    mask = (abs(x - 64) < 20) & (abs(y - 30) < 12)
    moved, moved_mask = warp.align(image, mask, points, target)
    expected = (abs(x - (0.9 * 64 + 16)) < 18) & (abs(y - (0.9 * 30 + 4)) < 10.8)
    assert (moved_mask ^ expected).sum() < 0.06 * expected.sum()
    # Column c of the target shows column (c + 0.5 - 16) / 0.9 - 0.5 of the source.
    columns = np.arange(40, 90)
    np.testing.assert_allclose(moved[64, columns, 0], 2 * ((columns + 0.5 - 16) / 0.9 - 0.5), atol=1.5)
    same, same_mask = warp.align(image, mask, points, points)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(same_mask, mask)


# --- expansion ----------------------------------------------------------------------------------------

def test_the_region_is_the_union_grown_but_spares_what_lies_on_top():
    worn = np.zeros((20, 20), np.uint8)
    worn[2:4, 5:15] = attribute_bit("hat")
    worn[4:7, 5:15] = attribute_bit("hair")
    coming = np.zeros((20, 20), bool)
    coming[2:12, 8:12] = True
    region = expand.portrait_region(worn, ["hair"], [("hair", coming)], margin=0)
    hair, hat = worn == attribute_bit("hair"), worn == attribute_bit("hat")
    np.testing.assert_array_equal(region, hair | (coming & ~hat))
    # A hat covers hair, and replacing both spares neither.
    assert expand.portrait_region(worn, ["hat"], [("hat", coming)], margin=0)[2:12, 8:12].all()
    both = expand.portrait_region(worn, ["hair", "hat"], [("hair", coming)], margin=0)
    np.testing.assert_array_equal(both, (worn > 0) | coming)
    assert (expand.portrait_region(worn, ["hair"], margin=1) >= hair).all()
    assert not expand.portrait_region(worn, ["beard"], margin=2).any()


def test_a_donor_mask_lands_where_the_face_is():
    donor, target = face(np.random.default_rng(0)), face(np.random.default_rng(0))
    target[:, :2] = (target[:, :2] - 0.5) * 0.5 + 0.6
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    moved = expand.move_mask(mask, donor, target, size=(128, 128))
    expected = np.zeros((128, 128), bool)  # (20 / 64 - 0.5) * 0.5 + 0.6 of 128 px, and so on
    expected[65:85, 65:85] = True
    assert (moved ^ expected).sum() <= 80


# --- retargeting --------------------------------------------------------------------------------------

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


def test_a_still_driver_leaves_the_portrait_as_it_is():
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


def test_retargeting_names_what_is_wrong():
    with pytest.raises(InputError, match="no reference 9"):
        retarget.retarget(driver(), driver()[0], 9)
    with pytest.raises(InputError, match="keypoints"):
        retarget.retarget(driver()[0], driver()[0])


def test_retargeting_finds_the_drawn_motion_of_another_person():
    """The procedural world knows how the portrait looks in the driver's motion: within 0.4 px of 128."""
    errors, shape_differences = [], []
    for index in range(3):
        motion = synthetic.sample_motion("validation", index, 5)
        truth, drive = (synthetic.render(synthetic.sample_person("validation", number), motion, 32).keypoints
                          for number in (index, 100 + index))
        found = retarget.retarget(drive, truth[0])
        errors.append(np.linalg.norm((found - truth)[..., :2], axis=-1).mean() * 128)
        shape_differences.append(np.linalg.norm((drive - truth)[..., :2], axis=-1).mean() * 128)
    assert max(errors) < 0.4 and np.mean(errors) < 0.3 * np.mean(shape_differences)
