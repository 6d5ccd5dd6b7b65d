"""Drawing of keypoints: numpy and jax agree, lines and irises have the expected values."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.faces import draw
from durian_jax.faces.topology import GROUPS, K
from tests.helpers.faces import face


def test_importing_faces_does_not_import_jax():
    code = ("import sys, durian_jax.faces.draw, durian_jax.faces.warp, durian_jax.faces.fill_region, "
            "durian_jax.faces.retarget; sys.exit('jax' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_numpy_and_jax_draw_the_same():
    points = np.stack([face(np.random.default_rng(i)) for i in range(2)])
    drawn = draw.keypoint_image(points, 48, 64)
    on_device = jax.jit(lambda p: draw.keypoint_image(p, 48, 64, jnp))(points)
    assert drawn.shape == (2, 48, 64, 3) and drawn.dtype == np.float32
    assert drawn.min() >= 0 and drawn.max() <= 1
    np.testing.assert_allclose(drawn, on_device, atol=1e-5)
    np.testing.assert_array_equal(drawn[1], draw.keypoint_image(points[1], 48, 64))


def test_a_line_has_the_expected_colour_width_and_position():
    points = np.full((K, 3), -5.0)  # all other points lie far outside
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
