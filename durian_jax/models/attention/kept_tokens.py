"""Drop reference tokens that show nothing, down to a fixed capacity.

A masked picture is blank where its mask is 0. A model may keep a fixed share of each group's tokens, the relevant ones
first, and project and attend to these alone. The number of kept tokens does not depend on the pictures.

Axis letters: B clips, G reference groups (the portrait first, then the attributes), h x w latents, N = side * side
tokens of an attention site, S tokens kept of all groups together.
"""

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

# Tokens covered by less than this count as empty: resized masks are 0 only up to rounding.
TRACE = 0.01


@flax.struct.dataclass
class KeptTokens:
    """The kept tokens of one attention site.

    Attributes:
        index: (B, S) int32 among the G * N tokens of all groups, ascending.
        sizes: number of kept tokens of each group; they add up to S.
    """

    index: jax.Array
    sizes: tuple[int, ...] = flax.struct.field(pytree_node=False)


def spread_pattern(side: int) -> np.ndarray:
    """(side, side) in [0, 1): the highest values within any region are spread evenly over it.

    A plane through the R2 sequence (M. Roberts, "The unreasonable effectiveness of quasirandom sequences"): steps of
    1 / p and 1 / p^2 for p^3 = p + 1.
    """
    y, x = np.mgrid[:side, :side]
    return ((0.7548776662466927 * x + 0.5698402909980532 * y) % 1).astype(np.float32)


def squared_distance(region: jax.Array) -> jax.Array:
    """(..., side, side) bool -> int32 squared distance to the nearest True; without any True, the same everywhere."""
    side = region.shape[-1]
    apart = (jnp.arange(side)[:, None] - jnp.arange(side)) ** 2
    in_row = (apart + jnp.where(region, 0, 2 * side**2)[..., None, :]).min(-1)
    return (apart[..., None] + in_row[..., None, :, :]).min(-2)


def shares(relevance: jax.Array, side: int) -> jax.Array:
    """(..., h, w) in [0, 1] -> (..., side, side), the mean over each token of a site."""
    *lead, h, w = relevance.shape
    return relevance.reshape(*lead, side, h // side, side, w // side).mean((-3, -1))


def importance(relevance: jax.Array, side: int) -> jax.Array:
    """(..., h, w) in [0, 1] -> (..., N) rank of every token; tokens with the highest rank are kept.

    Tokens covered by half or more have equal rank: an outline tells as much as the inside. Break ties with an
    even spatial pattern. Empty tokens follow, by their distance to the nearest token that is not empty.
    """
    share = shares(relevance, side)
    order = jnp.minimum(2 * share, 1) + spread_pattern(side) / 8 - squared_distance(share > TRACE)
    return order.reshape(*order.shape[:-2], side * side)


def kept_size(capacity: float, tokens: int) -> int:
    """Number of tokens that a group keeps, at least 1."""
    return math.ceil(capacity * tokens)


def keep_tokens(relevance: jax.Array, tokens: int, capacities: Sequence[float]) -> KeptTokens:
    """Choose the tokens to keep at a site.

    Args:
        relevance: (B, G, h, w) in [0, 1], the share of every latent that a group shows: 1 - M_port and M_attr.
        tokens: N of the site.
        capacities: share of the tokens to keep, for each group.
    """
    sizes = tuple(kept_size(capacity, tokens) for capacity in capacities)
    order = importance(relevance, math.isqrt(tokens))
    # argsort instead of top_k, for which XLA (jax 0.10) gathers the clips of all devices.
    best_first = jnp.argsort(-order, -1)
    kept = [jnp.sort(best_first[:, group, :size], -1) + group * tokens for group, size in enumerate(sizes)]
    return KeptTokens(jnp.concatenate(kept, -1), sizes)
