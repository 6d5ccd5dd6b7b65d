"""Spatial attention over a frame and its reference groups (arXiv 2509.04434, section 3.2).

    SA = Attention(Q = W_Q F_t,  K = W_K F_ref,  V = W_V F_ref),  F_ref = concat(F_t, F_port, F_attr)

Axis letters: B clips, F frames, G reference groups (the portrait first, then the attributes), M blends,
N tokens of a frame, S tokens of all references, H heads, D channels per head.
"""

import flax.struct
import jax
import jax.numpy as jnp

from durian_jax.models.attention.kernels import KERNELS
from durian_jax.models.attention.method import AttentionMethod
from durian_jax.models.attention.plain import in_chunks


@flax.struct.dataclass
class ReferenceSet:
    """Which reference groups take part, and how the results of several selections are blended.

    The plain method is M = 1. Composition is more than one attribute group in one selection.
    Interpolation is M = 2: each selection holds one attribute and the outputs are blended,
    (1 - alpha) SA(.., F_attr^1) + alpha SA(.., F_attr^2).

    Attributes:
        valid: (B, M, G) bool; False removes a group from a selection.
        weight: (B, F, M) blend weights that sum to 1 over M; F may be 1: the same in all frames.
        attributes: (B, M, A) bool; which attributes' image embeddings take part in cross-attention.
    """

    valid: jax.Array
    weight: jax.Array
    attributes: jax.Array

    def keep(self, clips: jax.Array) -> "ReferenceSet":
        """The same selection for the clips (B,) that are True, nothing for the others (guidance drop-out)."""
        clips = clips[:, None, None]
        return self.replace(valid=self.valid & clips, attributes=self.attributes & clips)


@flax.struct.dataclass
class KeyValues:
    """Reference features of one attention site, projected once per clip.

    Attributes:
        key, value: (B, S, H, D), one group after the other.
        sizes: number of tokens of each group; they add up to S.
    """

    key: jax.Array
    value: jax.Array
    sizes: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def seen(self, valid: jax.Array) -> jax.Array:
        """Groups (B, G) -> their tokens (B, S)."""
        return jnp.concatenate([jnp.broadcast_to(valid[:, group, None], (len(valid), size))
                                for group, size in enumerate(self.sizes)], -1)

    def attend(self, query: jax.Array, key: jax.Array, value: jax.Array, selection: ReferenceSet,
               method: AttentionMethod) -> jax.Array:
        """`reference_attention` to these references."""
        return reference_attention(query, key, value, self, selection, method)


def embedding_attention(query: jax.Array, key: jax.Array, value: jax.Array,
                        selection: ReferenceSet | None) -> jax.Array:
    """Attend to image embeddings, blended as spatial attention is.

    Args:
        query: (B, F * N, H, D).
        key, value: (B, A, H, D) of the attributes' embeddings.
        selection: attributes that take part, and blend weights; None: all take part. Embeddings of the others must
            be 0: a selection without any attribute attends to all of them.

    Returns:
        (B, F * N, H, D).
    """
    if selection is None:
        return jax.nn.dot_product_attention(query, key, value)
    seen = selection.attributes | ~selection.attributes.any(-1, keepdims=True)
    weight = jnp.repeat(selection.weight, query.shape[1] // selection.weight.shape[1], 1).astype(value.dtype)
    blends = [jax.nn.dot_product_attention(query, key, value, mask=seen[:, m, None, None]) * weight[..., m, None, None]
              for m in range(seen.shape[1])]
    return sum(blends)


def reference_attention(query: jax.Array, key: jax.Array, value: jax.Array, references: KeyValues,
                        selection: ReferenceSet, method: AttentionMethod | None = None) -> jax.Array:
    """Attend from every frame to itself and to the references that all frames of its clip share.

    Args:
        query, key, value: (B, F, N, H, D) of the frames.
        references: keys and values of the references.
        selection: groups that take part, and blend weights.
        method: how to compute it; None: by XLA.

    Returns:
        (B, F, N, H, D).
    """
    method = method or AttentionMethod()
    if method.implementation == "xla":
        return _xla(query, key, value, references, selection)
    if method.implementation == "chunked":
        return in_chunks(lambda part: _xla(part, key, value, references, selection), query, 2)
    return _by_kernel(query, key, value, references, selection, method)


def _xla(query: jax.Array, key: jax.Array, value: jax.Array, references: KeyValues, selection: ReferenceSet
         ) -> jax.Array:
    """All logits at once.

    Logits against the references are one product for all frames of a clip: keys are neither repeated over frames nor
    concatenated with the frame's own.
    """
    b, f, n, h, d = query.shape
    scaled = query * d ** -0.5
    # Move heads before tokens once, on these small arrays: the logits are never transposed.
    frame_query = scaled.transpose(0, 1, 3, 2, 4)                                   # B F H N D
    clip_query = scaled.transpose(0, 3, 1, 2, 4).reshape(b, h, f * n, d)            # B H FN D
    own = jnp.einsum("bfhnd,bfshd->bfhns", frame_query, key, preferred_element_type=jnp.float32)
    reference = jnp.einsum("bhqd,bshd->bhqs", clip_query, references.key, preferred_element_type=jnp.float32)
    own_max = own.max(-1)                                                           # B F H N

    def attend(valid: jax.Array) -> jax.Array:
        bias = jnp.where(references.seen(valid), 0.0, -jnp.inf)[:, None, None]      # B 1 1 S
        logits = reference + bias
        to_frames = lambda x: x.reshape(b, h, f, n, *x.shape[3:]).swapaxes(1, 2)    # B F H N ...
        to_clip = lambda x: x.swapaxes(1, 2).reshape(b, h, f * n)
        highest = jax.lax.stop_gradient(jnp.maximum(own_max, to_frames(logits.max(-1))))
        own_weights = jnp.exp(own - highest[..., None])
        weights = jnp.exp(logits - to_clip(highest)[..., None])
        total = own_weights.sum(-1) + to_frames(weights.sum(-1))
        mixed = jnp.einsum("bfhns,bfshd->bfhnd", own_weights.astype(value.dtype), value,
                           preferred_element_type=jnp.float32)
        mixed += to_frames(jnp.einsum("bhqs,bshd->bhqd", weights.astype(value.dtype), references.value,
                                      preferred_element_type=jnp.float32))
        return (mixed / total[..., None]).transpose(0, 1, 3, 2, 4).astype(value.dtype)

    blends = [attend(selection.valid[:, m]) * selection.weight[..., m, None, None, None]
              for m in range(selection.valid.shape[1])]
    return sum(blends)


def _by_kernel(query: jax.Array, key: jax.Array, value: jax.Array, references: KeyValues, selection: ReferenceSet,
               method: AttentionMethod) -> jax.Array:
    """One kernel call for each selection, over a frame's keys with those of its references."""
    attend, blends = KERNELS[method.implementation], []
    for m in range(selection.valid.shape[1]):
        keys, values, seen = _one_sequence(key, value, references, selection.valid[:, m])
        weight = selection.weight[..., m, None, None, None].astype(query.dtype)
        blends.append(attend(query, keys, values, seen, method) * weight)
    return sum(blends)


def _one_sequence(key: jax.Array, value: jax.Array, references: KeyValues, valid: jax.Array
                  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys and values (B, F, N + S, H, D) of every frame with its references, and which are seen (B, N + S)."""
    b, f, n = key.shape[:3]
    repeated = lambda x: jnp.broadcast_to(x[:, None], (b, f, *x.shape[1:]))
    seen = jnp.concatenate([jnp.ones((b, n), bool), references.seen(valid)], -1)
    return (jnp.concatenate([key, repeated(references.key).astype(key.dtype)], 2),
            jnp.concatenate([value, repeated(references.value).astype(value.dtype)], 2), seen)
