"""Implementations of attention: each against the plain one, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.models import attention
from durian_jax.models.attention import (
    IMPLEMENTATIONS,
    KeyValues,
    ReferenceSet,
    choose_implementation,
    reference_attention,
    self_attention,
)


def inputs(b=2, f=2, n=128, sizes=(128, 128), h=2, d=8):
    """Frames, references of two groups and a selection of two blends, in which a group is hidden."""
    keys = iter(jax.random.split(jax.random.key(0), 5))
    make = lambda *shape: jax.random.normal(next(keys), shape)
    frames = [make(b, f, n, h, d) for _ in range(3)]
    references = KeyValues(make(b, sum(sizes), h, d), make(b, sum(sizes), h, d), sizes)
    valid = jnp.array([[[True, True], [True, False]], [[True, False], [False, False]]])
    weight = jnp.array([[0.3, 0.7], [1.0, 0.0]])
    valid, weight = jnp.tile(valid, (b // 2, 1, 1)), jnp.tile(weight, (b // 2, 1))
    return frames, references, ReferenceSet(valid, weight, valid)


def value_and_gradients(implementation):
    """Of a random projection of the result, with respect to all that is attended with."""
    frames, references, selection = inputs()
    direction = jax.random.normal(jax.random.key(9), frames[0].shape)

    def loss(frames, references):
        return jnp.sum(direction * reference_attention(*frames, references, selection, implementation))
    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(frames, references))


@pytest.fixture(scope="module")
def plain():
    return value_and_gradients("xla")


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * float(jnp.abs(b).max()))


def test_chunks_give_the_same(plain, monkeypatch):
    monkeypatch.setattr(attention, "_CHUNK", 48)  # of 128 queries: parts of 32
    assert_same(value_and_gradients("chunked"), plain)


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(attention, "_INTERPRET", True)


def test_splash_gives_the_same(plain, interpreted):
    assert_same(value_and_gradients("splash"), plain)


def test_chunks_need_less_memory():
    query = jnp.zeros((1, 2048, 2, 8))

    def temporary_bytes(implementation):
        loss = lambda x: jnp.sum(self_attention(x, x, x, None, implementation) ** 2)
        return jax.jit(jax.grad(loss)).lower(query).compile().memory_analysis().temp_size_in_bytes
    assert temporary_bytes("chunked") < temporary_bytes("xla") / 3


@pytest.mark.parametrize("implementation", ["chunked", "splash"])
@pytest.mark.parametrize("valid", [None, True])
def test_self_attention_gives_the_same(implementation, valid, interpreted):
    query, key, value = (x[:, 0] for x in inputs()[0])
    seen = None if valid is None else jnp.arange(128)[None] < jnp.array([128, 70])[:, None]
    expected = self_attention(query, key, value, seen)
    found = self_attention(query, key, value, seen, implementation)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_few_tokens_are_left_to_xla():
    """Sequences that are no multiples of 128 would not fit splash's blocks."""
    frames, references, selection = inputs(n=64, sizes=(64, 64))
    expected = reference_attention(*frames, references, selection)
    np.testing.assert_allclose(reference_attention(*frames, references, selection, "splash"), expected, atol=1e-5)


def test_heads_too_wide_for_cudnn_are_left_to_xla():
    """Those of Stable Diffusion's innermost levels, on GPUs before compute capability 9.0."""
    frames, references, selection = inputs(n=16, sizes=(16, 16), d=160)
    expected = reference_attention(*frames, references, selection)
    np.testing.assert_allclose(reference_attention(*frames, references, selection, "cudnn"), expected, atol=1e-5)


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
