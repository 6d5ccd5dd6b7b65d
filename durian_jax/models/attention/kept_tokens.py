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

from durian_jax.models.token_importance import kept_index


@flax.struct.dataclass
class KeptTokens:
    """The kept tokens of one attention site.

    Attributes:
        index: (B, S) int32 among the G * N tokens of all groups, ascending.
        sizes: number of kept tokens of each group; they add up to S.
    """

    index: jax.Array
    sizes: tuple[int, ...] = flax.struct.field(pytree_node=False)


def keep_tokens(relevance: jax.Array, tokens: int, capacities: Sequence[float]) -> KeptTokens:
    """Choose the tokens to keep at a site.

    Args:
        relevance: (B, G, h, w) in [0, 1], the share of every latent that a group shows: 1 - M_port and M_attr.
        tokens: N of the site.
        capacities: share of the tokens to keep, for each group.
    """
    side = math.isqrt(tokens)
    kept = [kept_index(relevance[:, group], side, capacity) for group, capacity in enumerate(capacities)]
    return KeptTokens(jnp.concatenate([index + group * tokens for group, index in enumerate(kept)], -1),
                      tuple(index.shape[-1] for index in kept))
