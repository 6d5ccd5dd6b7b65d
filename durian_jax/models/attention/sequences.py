"""Attention within sequences, by any implementation.

Axis letters: M sequences, B clips, F frames, N tokens or queries, S keys, H heads, D channels per head.
"""

import jax
import jax.numpy as jnp

from durian_jax.models.attention.kernels import KERNELS
from durian_jax.models.attention.method import AttentionMethod
from durian_jax.models.attention.plain import chunked_product, product


def self_attention(query: jax.Array, key: jax.Array, value: jax.Array, valid: jax.Array | None = None,
                   method: AttentionMethod | None = None) -> jax.Array:
    """Attend within one sequence: (M, N, H, D) each -> (M, N, H, D).

    Args:
        valid: (M, N) bool; False hides a token from all others. None: all tokens are seen.
        method: how to compute it; None: by XLA.
    """
    method = method or AttentionMethod()
    if method.implementation == "xla":
        return product(query, key, value, valid)
    if method.implementation == "chunked":
        return chunked_product(query, key, value, valid)
    attend = KERNELS[method.implementation]
    return attend(query[:, None], key[:, None], value[:, None], valid, method)[:, 0]


def frame_attention(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None = None,
                    method: AttentionMethod | None = None, across_frames: bool = False) -> jax.Array:
    """Attend within every frame of a clip: (B, F, N, H, D) queries, (B, F, S, H, D) keys and values.

    Args:
        seen: (B, S) bool; False hides a key from all frames of a clip. None: all keys are seen.
        method: how to compute it; None: by XLA.
        across_frames: N are the tokens of all frames, in order, and F is 1.
    """
    method = method or AttentionMethod()
    if method.implementation in KERNELS:
        return KERNELS[method.implementation](query, key, value, seen, method, across_frames)
    f = query.shape[1]
    merged = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
    attend = chunked_product if method.implementation == "chunked" else product
    return attend(*merged, None if seen is None else jnp.repeat(seen, f, 0)).reshape(query.shape)
