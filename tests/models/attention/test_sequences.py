"""Attention within a sequence: each implementation against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.attention import AttentionMethod, self_attention
from tests.helpers.models import attention_inputs


def test_chunks_need_less_memory():
    query = jnp.zeros((1, 2048, 2, 8))

    def temporary_bytes(implementation):
        loss = lambda x: jnp.sum(self_attention(x, x, x, None, AttentionMethod(implementation)) ** 2)
        return jax.jit(jax.grad(loss)).lower(query).compile().memory_analysis().temp_size_in_bytes
    assert temporary_bytes("chunked") < temporary_bytes("xla") / 3


@pytest.mark.parametrize("implementation", ["chunked", "splash"])
@pytest.mark.parametrize("valid", [None, True])
def test_self_attention_gives_the_same(implementation, valid):
    query, key, value = (x[:, 0] for x in attention_inputs()[0])
    seen = None if valid is None else jnp.arange(128)[None] < jnp.array([128, 70])[:, None]
    expected = self_attention(query, key, value, seen)
    found = self_attention(query, key, value, seen, AttentionMethod(implementation, interpret=True))
    np.testing.assert_allclose(found, expected, atol=1e-5)
