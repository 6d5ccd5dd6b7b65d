"""Attention to references: against the paper's formula, and each implementation against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.attention import AttentionMethod, KeyValues, ReferenceSet, plain, reference_attention
from tests.helpers.models import attention_inputs

SPLASH = AttentionMethod("splash", interpret=True)


def value_and_gradients(method=None):
    """Of a random projection of the result, with respect to queries, keys, values and references."""
    frames, references, selection = attention_inputs()
    direction = jax.random.normal(jax.random.key(9), frames[0].shape)

    def loss(frames, references):
        return jnp.sum(direction * reference_attention(*frames, references, selection, method))
    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(frames, references))


@pytest.fixture(scope="module")
def expected():
    return value_and_gradients()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * float(jnp.abs(b).max()))


def test_reference_attention_is_attention_over_the_concatenation():
    """Against the paper's formula, written plainly."""
    b, f, n, g, s, h, d = 2, 3, 5, 3, 4, 2, 8
    keys = jax.random.split(jax.random.key(0), 5)
    q, k, v = (jax.random.normal(key, (b, f, n, h, d)) for key in keys[:3])
    rk, rv = (jax.random.normal(key, (b, g, s, h, d)) for key in keys[3:])
    valid = jnp.array([[[True, True, False]], [[True, False, True]]])
    references = KeyValues(rk.reshape(b, g * s, h, d), rv.reshape(b, g * s, h, d), (s,) * g)
    got = reference_attention(q, k, v, references, ReferenceSet(valid, jnp.ones((b, 1, 1)), valid))
    for i in range(b):
        chosen = [j for j in range(g) if valid[i, 0, j]]
        for frame in range(f):
            all_k = jnp.concatenate([k[i, frame], *(rk[i, j] for j in chosen)])
            all_v = jnp.concatenate([v[i, frame], *(rv[i, j] for j in chosen)])
            weights = jax.nn.softmax(jnp.einsum("nhd,shd->hns", q[i, frame], all_k) / np.sqrt(d))
            np.testing.assert_allclose(got[i, frame], jnp.einsum("hns,shd->nhd", weights, all_v), atol=2e-6)


def test_without_any_valid_reference_attention_is_self_attention():
    keys = jax.random.split(jax.random.key(0), 5)
    q, k, v = (jax.random.normal(key, (1, 2, 4, 1, 8)) for key in keys[:3])
    rk, rv = (jax.random.normal(key, (1, 8, 1, 8)) for key in keys[3:])
    none = ReferenceSet(jnp.zeros((1, 1, 2), bool), jnp.ones((1, 1, 1)), jnp.zeros((1, 1, 1), bool))
    got = reference_attention(q, k, v, KeyValues(rk, rv, (4, 4)), none)
    np.testing.assert_allclose(got[0], jax.nn.dot_product_attention(q[0], k[0], v[0]), atol=2e-6)


def test_chunks_give_the_same(expected, monkeypatch):
    monkeypatch.setattr(plain, "_CHUNK", 48)  # of 128 queries: parts of 32
    assert_same(value_and_gradients(AttentionMethod("chunked")), expected)


def test_splash_gives_the_same(expected):
    assert_same(value_and_gradients(SPLASH), expected)


@pytest.mark.parametrize("method", [AttentionMethod("chunked"), SPLASH], ids=["chunked", "splash"])
def test_implementations_have_the_same_gradients_for_unequal_groups(method):
    frames, references, selection = attention_inputs(sizes=(192, 64))
    loss = lambda method: lambda frames, references: jnp.sum(jnp.sin(
        reference_attention(*frames, references, selection, method)))
    expected, found = (jax.tree.leaves(jax.jit(jax.grad(loss(chosen), argnums=(0, 1)))(frames, references))
                       for chosen in (None, method))
    assert_same(found, expected)
