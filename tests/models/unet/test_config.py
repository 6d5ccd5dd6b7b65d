"""Sizes of the U-Net: contradictions are refused."""

import pytest

from durian_jax.models.unet.config import UNetConfig


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match=r"heads: expected one entry per level of channels \(2\), found 1"):
        UNetConfig(channels=(16, 32), heads=(1,), attention=(True, True))
    with pytest.raises(ValueError, match="attention: expected at least one level with attention"):
        UNetConfig(channels=(16,), heads=(1,), attention=(False,))
