"""Position codes."""

import numpy as np

from durian_jax.models.positions import grid_position_code


def test_a_place_is_most_like_itself_and_less_like_others_with_distance():
    code = grid_position_code(8, 64)
    product = np.asarray(code @ code.T)
    assert (product.argmax(1) == np.arange(64)).all()
    assert product[0, 0] > product[0, 1] > product[0, 4]
