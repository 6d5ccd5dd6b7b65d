"""Primitives of the networks."""

import jax.numpy as jnp
import numpy as np

from durian_jax.models.layers import depth_to_space, space_to_depth


def test_space_to_depth_round_trip():
    x = jnp.arange(2 * 8 * 8 * 3.0).reshape(2, 8, 8, 3)
    np.testing.assert_array_equal(depth_to_space(space_to_depth(x, 4), 4), x)
