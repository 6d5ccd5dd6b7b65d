"""Sizes of the U-Net: contradictions are refused."""

import pytest

from durian_jax.models.unet.config import UNetConfig


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="one entry per level"):
        UNetConfig(channels=(16, 32), heads=(1,), attention=(True, True))
    with pytest.raises(ValueError, match="at least one level needs attention"):
        UNetConfig(channels=(16,), heads=(1,), attention=(False,))
