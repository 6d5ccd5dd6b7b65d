"""Attention within sequences, by any implementation.

Axis letters: M sequences, N tokens, H heads, D channels per head.
"""

import jax

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
