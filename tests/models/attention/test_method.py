"""The choice of an implementation of attention."""

import pytest

from durian_jax.errors import InputError
from durian_jax.models.attention import IMPLEMENTATIONS, AttentionMethod, choose_implementation


def test_the_platform_chooses():
    chosen = [choose_implementation("auto", *case) for case in (
        ("tpu", "bfloat16"), ("gpu", "bfloat16", "9.0"), ("gpu", "bfloat16", "12.0"), ("gpu", "bfloat16", "7.5"),
        ("gpu", "bfloat16", "gfx90a"), ("gpu", "float32", "9.0"), ("cpu", "bfloat16"))]
    assert chosen == ["splash", "cudnn", "cudnn", "xla", "xla", "xla", "xla"]
    assert choose_implementation("chunked", "tpu", "bfloat16") == "chunked"
    for name, found in (("splash", "cpu"), ("cudnn", "tpu")):
        with pytest.raises(InputError, match=f"attention={name} runs on a .*found a {found}"):
            choose_implementation(name, found, "bfloat16")
    assert set(chosen) < set(IMPLEMENTATIONS)


def test_unknown_implementations_are_refused():
    with pytest.raises(InputError, match="unknown attention 'flash'; expected one of xla, chunked, splash, cudnn"):
        AttentionMethod("flash")
