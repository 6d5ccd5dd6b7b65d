"""Attention within a sequence: each implementation against the plain one."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from durian_jax.models.attention import AttentionMethod, Partition, frame_attention, self_attention
from durian_jax.models.attention.kernels import _specs
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


def test_frames_attend_within_themselves():
    """(B, F, N, H, D) queries see the keys of their own frame only, of any number, and no hidden ones."""
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (2, 3, 4, 2, 8))
    key, value = (jax.random.normal(k, (2, 3, 6, 2, 8)) for k in keys[1:])
    seen = jnp.array([[True] * 6, [True] * 4 + [False] * 2])
    found = frame_attention(query, key, value, seen)
    for b, f, count in ((0, 1, 6), (1, 2, 4)):
        alone = self_attention(query[b, f][None], key[b, f, :count][None], value[b, f, :count][None])
        np.testing.assert_allclose(found[b, f], alone[0], atol=1e-5)
    chunked = frame_attention(query, key, value, seen, AttentionMethod("chunked"))
    np.testing.assert_allclose(chunked, found, atol=1e-5)


def test_tokens_of_all_frames_are_divided_among_devices():
    """Across frames the mesh divides queries, and every device sees all keys."""
    mesh = SimpleNamespace(shape={"data": 2, "frames": 4, "tensor": 1})
    partition = Partition(mesh, ("data",), ("frames",), ("tensor",))
    shape = (4, 1, 4096, 2, 64)
    queries, keys, clips, count = _specs(partition, shape, across_frames=True)
    assert queries == P(("data",), None, ("frames",), ("tensor",)) and keys == P(("data",), None, None, ("tensor",))
    assert clips == P(("data",)) and count == 1024
    within, same, _, count = _specs(partition, (4, 8, 512, 2, 64), across_frames=False)
    assert within == same == P(("data",), ("frames",), None, ("tensor",)) and count == 512
