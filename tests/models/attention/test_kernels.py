"""Shapes that the fused kernels do not take are left to XLA."""

import numpy as np

from durian_jax.models.attention import AttentionMethod, reference_attention
from tests.helpers.models import attention_inputs


def assert_left_to_xla(implementation, **sizes):
    """The kernels themselves would fail on the CPU that runs the tests."""
    frames, references, selection = attention_inputs(**sizes)
    expected = reference_attention(*frames, references, selection)
    found = reference_attention(*frames, references, selection, AttentionMethod(implementation))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_few_tokens_are_left_to_xla():
    """Sequences that are no multiples of 128 would not fit splash's blocks."""
    assert_left_to_xla("splash", n=64, sizes=(64, 64))


def test_keys_that_fill_no_block_are_left_to_xla():
    assert_left_to_xla("splash", sizes=(96, 40))


def test_heads_too_wide_for_cudnn_are_left_to_xla():
    """Stable Diffusion's innermost levels have wide heads, which GPUs before compute capability 9.0 do not take."""
    assert_left_to_xla("cudnn", n=16, sizes=(16, 16), d=160)
