"""Spatial attention over a frame and its reference groups (Durian, section 3.2).

    SA = Attention(Q = W_Q F_t,  K = W_K F_ref,  V = W_V F_ref),  F_ref = concat(F_t, F_port, F_attr)

Axis letters: B clips, F frames, G reference groups (the portrait first, then the attributes), M blends,
N tokens of a frame, S tokens of a reference, H heads, D channels of a head.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class ReferenceSet:
    """Which reference groups take part, and how the results of several selections are blended.

    The plain method is M = 1. Composition is more than one attribute group in one selection.
    Interpolation is M = 2: each selection holds one attribute and the outputs are blended,
    (1 - alpha) SA(.., F_attr^1) + alpha SA(.., F_attr^2).

    Attributes:
        valid: (B, M, G) bool; False removes a group from a selection.
        weight: (B, M) blend weights that sum to 1.
        attributes: (B, M, A) bool; which attributes' image embeddings take part in cross-attention.
    """

    valid: jax.Array
    weight: jax.Array
    attributes: jax.Array


@flax.struct.dataclass
class KeyValues:
    """Reference features of one attention site, projected once a clip.

    Attributes:
        key, value: (B, G, S, H, D).
    """

    key: jax.Array
    value: jax.Array


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """(..., C) -> (..., H, D)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x: jax.Array) -> jax.Array:
    """(..., H, D) -> (..., C)."""
    return x.reshape(*x.shape[:-2], -1)


def self_attention(query: jax.Array, key: jax.Array, value: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Plain attention within one sequence: (M, N, H, D) each -> (M, N, H, D).

    Args:
        valid: (M, N) bool; False hides a token from all others. None: all are seen.
    """
    mask = None if valid is None else valid[:, None, None]
    return jax.nn.dot_product_attention(query, key, value, mask=mask)


def embedding_attention(query: jax.Array, key: jax.Array, value: jax.Array,
                        selection: ReferenceSet | None) -> jax.Array:
    """Attention to image embeddings, blended as spatial attention is.

    Args:
        query: (B, N, H, D).
        key, value: (B, A, H, D) of the attributes' embeddings.
        selection: attributes that take part, and blend weights; None: all do. Embeddings of those that do not are
            expected to be 0, so that where none takes part all may.

    Returns:
        (B, N, H, D).
    """
    if selection is None:
        return jax.nn.dot_product_attention(query, key, value)
    seen = selection.attributes | ~selection.attributes.any(-1, keepdims=True)
    blends = [jax.nn.dot_product_attention(query, key, value, mask=seen[:, m, None, None])
              * selection.weight[:, m, None, None, None].astype(value.dtype)
              for m in range(selection.weight.shape[1])]
    return sum(blends)


def reference_attention(query: jax.Array, key: jax.Array, value: jax.Array,
                        references: KeyValues, selection: ReferenceSet) -> jax.Array:
    """Every frame attends to itself and to the references that all frames of its clip share.

    Logits against the references are one product for all frames of a clip: keys are neither repeated
    over frames nor concatenated with the frame's own.

    Args:
        query, key, value: (B, F, N, H, D) of the frames.
        references: keys and values of the references.
        selection: groups that take part, and blend weights.

    Returns:
        (B, F, N, H, D).
    """
    b, f, n, h, d = query.shape
    scaled = query * d ** -0.5
    # Heads before tokens once, on these small arrays: the logits are never transposed.
    frame_query = scaled.transpose(0, 1, 3, 2, 4)                                   # B F H N D
    clip_query = scaled.transpose(0, 3, 1, 2, 4).reshape(b, h, f * n, d)            # B H FN D
    own = jnp.einsum("bfhnd,bfshd->bfhns", frame_query, key, preferred_element_type=jnp.float32)
    groups, tokens = references.key.shape[1:3]
    shape = (b, groups * tokens, h, d)
    reference = jnp.einsum("bhqd,bshd->bhqs", clip_query, references.key.reshape(shape),
                           preferred_element_type=jnp.float32)
    own_max = own.max(-1)                                                           # B F H N

    def attend(valid: jax.Array) -> jax.Array:
        bias = jnp.where(jnp.repeat(valid, tokens, -1), 0.0, -jnp.inf)[:, None, None]  # B 1 1 GS
        logits = reference + bias
        to_frames = lambda x: x.reshape(b, h, f, n, *x.shape[3:]).swapaxes(1, 2)    # B F H N ...
        to_clip = lambda x: x.swapaxes(1, 2).reshape(b, h, f * n)
        highest = jax.lax.stop_gradient(jnp.maximum(own_max, to_frames(logits.max(-1))))
        own_weights = jnp.exp(own - highest[..., None])
        weights = jnp.exp(logits - to_clip(highest)[..., None])
        total = own_weights.sum(-1) + to_frames(weights.sum(-1))
        mixed = jnp.einsum("bfhns,bfshd->bfhnd", own_weights.astype(value.dtype), value,
                           preferred_element_type=jnp.float32)
        mixed += to_frames(jnp.einsum("bhqs,bshd->bhqd", weights.astype(value.dtype),
                                      references.value.reshape(shape), preferred_element_type=jnp.float32))
        return (mixed / total[..., None]).transpose(0, 1, 3, 2, 4).astype(value.dtype)

    blends = [attend(selection.valid[:, m]) * selection.weight[:, m, None, None, None, None]
              for m in range(selection.valid.shape[1])]
    return sum(blends)
