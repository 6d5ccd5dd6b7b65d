"""Rank the tokens of masked pictures: those that show the most are kept. For NumPy and JAX arrays; imports no jax.

Axis letters: h x w latents, N = side * side tokens of an attention site.
"""

import math
from typing import Any

import numpy as np

# Tokens covered by less than this count as empty: resized masks are 0 only up to rounding.
TRACE = 0.01


def spread_pattern(side: int) -> np.ndarray:
    """(side, side) in [0, 1): the highest values within any region are spread evenly over it.

    A plane through the R2 sequence (M. Roberts, "The unreasonable effectiveness of quasirandom sequences"): steps of
    1 / p and 1 / p^2 for p^3 = p + 1.
    """
    y, x = np.mgrid[:side, :side]
    return ((0.7548776662466927 * x + 0.5698402909980532 * y) % 1).astype(np.float32)


def squared_distance(region: Any) -> Any:
    """(..., side, side) bool -> integer squared distance to the nearest True; without any True, the same everywhere."""
    side, xp = region.shape[-1], region.__array_namespace__()
    apart = (xp.arange(side)[:, None] - xp.arange(side)) ** 2
    in_row = (apart + xp.where(region, 0, 2 * side**2)[..., None, :]).min(-1)
    return (apart[..., None] + in_row[..., None, :, :]).min(-2)


def shares(relevance: Any, side: int) -> Any:
    """(..., h, w) in [0, 1] -> (..., side, side), the mean over each token of a site."""
    *lead, h, w = relevance.shape
    return relevance.reshape(*lead, side, h // side, side, w // side).mean((-3, -1))


def importance(relevance: Any, side: int) -> Any:
    """(..., h, w) in [0, 1] -> (..., N) rank of every token; tokens with the highest rank are kept.

    Tokens covered by half or more have equal rank: an outline tells as much as the inside. Break ties with an
    even spatial pattern. Empty tokens follow, by their distance to the nearest token that is not empty.
    """
    share, xp = shares(relevance, side), relevance.__array_namespace__()
    distance = squared_distance(share > TRACE).astype(share.dtype)
    order = xp.minimum(2 * share, 1) + spread_pattern(side) / 8 - distance
    return order.reshape(*order.shape[:-2], side * side)


def kept_size(capacity: float, tokens: int) -> int:
    """Number of tokens that a group keeps, at least 1."""
    return math.ceil(capacity * tokens)


def kept_index(relevance: Any, side: int, capacity: float) -> Any:
    """(..., h, w) in [0, 1] -> (..., S) indices of the most relevant share of the N tokens, ascending."""
    xp = relevance.__array_namespace__()
    # argsort instead of top_k, for which XLA (jax 0.10) gathers the clips of all devices.
    best_first = xp.argsort(-importance(relevance, side), axis=-1, stable=True)
    return xp.sort(best_first[..., :kept_size(capacity, side * side)], axis=-1)
