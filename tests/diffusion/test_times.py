"""The shift of times towards noise."""

import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion.times import shift_times


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_shift(xp):
    t = xp.linspace(0, 1, 5)
    assert shift_times(t, 1.0) is t
    shifted = shift_times(t, 3.0)
    assert isinstance(shifted, type(t))
    np.testing.assert_allclose(shifted, [0, 1 / 2, 3 / 4, 9 / 10, 1], rtol=1e-6)
    np.testing.assert_allclose(shift_times(shifted, 1 / 3), t, atol=1e-6)
