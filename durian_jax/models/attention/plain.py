"""Attention by XLA: at once or in chunks.

Axis letters: M sequences, N queries, S keys, H heads, D channels per head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Number of queries whose logits are in memory at a time.
_CHUNK = 256


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """(..., C) -> (..., H, D)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x: jax.Array) -> jax.Array:
    """(..., H, D) -> (..., C)."""
    return x.reshape(*x.shape[:-2], -1)


def product(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
    """Attend from (M, N, H, D) to (M, S, H, D), where `seen` (M, S) hides keys; None: all are seen."""
    return jax.nn.dot_product_attention(query, key, value, mask=None if seen is None else seen[:, None, None])


def chunked_product(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
    """`product` with bounded memory."""
    return in_chunks(lambda part: product(part, key, value, seen), query, 1)


def without_kernel(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
    """`product`, in chunks if there are many queries: for shapes that a kernel does not take."""
    return (product if query.shape[1] <= _CHUNK else chunked_product)(query, key, value, seen)


def in_chunks(attend: Callable[[jax.Array], jax.Array], query: jax.Array, axis: int) -> jax.Array:
    """Attend for one chunk of the queries after the other; the backward pass recomputes each chunk.

    Args:
        attend: a chunk of the queries -> its result, of the same shape.
        axis: of the query tokens.
    """
    n = query.shape[axis]
    size = next(size for size in range(min(n, _CHUNK), 0, -1) if n % size == 0)
    parts = jnp.moveaxis(query.reshape(*query.shape[:axis], n // size, size, *query.shape[axis + 1:]), axis, 0)
    return jnp.moveaxis(jax.lax.map(jax.checkpoint(attend), parts), 0, axis).reshape(query.shape)
