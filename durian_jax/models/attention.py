"""Spatial attention over a frame and its reference groups (Durian, section 3.2).

    SA = Attention(Q = W_Q F_t,  K = W_K F_ref,  V = W_V F_ref),  F_ref = concat(F_t, F_port, F_attr)

Axis letters: B clips, F frames, G reference groups (the portrait first, then the attributes), M blends,
N tokens of a frame, S tokens of all references, H heads, D channels of a head.
"""

import math
import re
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from durian_jax.errors import InputError


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
        key, value: (B, S, H, D), one group after the other.
        sizes: tokens of each group; they add up to S.
    """

    key: jax.Array
    value: jax.Array
    sizes: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def seen(self, valid: jax.Array) -> jax.Array:
        """Groups (B, G) -> their tokens (B, S)."""
        return jnp.concatenate([jnp.broadcast_to(valid[:, group, None], (len(valid), size))
                                for group, size in enumerate(self.sizes)], -1)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """(..., C) -> (..., H, D)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x: jax.Array) -> jax.Array:
    """(..., H, D) -> (..., C)."""
    return x.reshape(*x.shape[:-2], -1)


def self_attention(query: jax.Array, key: jax.Array, value: jax.Array, valid: jax.Array | None = None,
                   implementation: str = "xla") -> jax.Array:
    """Plain attention within one sequence: (M, N, H, D) each -> (M, N, H, D).

    Args:
        valid: (M, N) bool; False hides a token from all others. None: all are seen.
        implementation: one of `IMPLEMENTATIONS`.
    """
    if implementation == "xla":
        return _product(query, key, value, valid)
    if implementation == "chunked":
        return _chunked_sequence(query, key, value, valid)
    attend = {"splash": _splash, "cudnn": _cudnn}[implementation]
    return attend(query[:, None], key[:, None], value[:, None], valid)[:, 0]


def _product(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
    """(M, N, H, D) with (M, S, H, D), of which (M, S) are seen."""
    return jax.nn.dot_product_attention(query, key, value, mask=None if seen is None else seen[:, None, None])


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


def reference_attention(query: jax.Array, key: jax.Array, value: jax.Array, references: KeyValues,
                        selection: ReferenceSet, implementation: str = "xla") -> jax.Array:
    """Every frame attends to itself and to the references that all frames of its clip share.

    Args:
        query, key, value: (B, F, N, H, D) of the frames.
        references: keys and values of the references.
        selection: groups that take part, and blend weights.
        implementation: one of `IMPLEMENTATIONS`.

    Returns:
        (B, F, N, H, D).
    """
    attend = IMPLEMENTATIONS[implementation]
    return attend(query, key, value, references, selection)


def _xla(query: jax.Array, key: jax.Array, value: jax.Array, references: KeyValues, selection: ReferenceSet
         ) -> jax.Array:
    """All logits at once.

    Logits against the references are one product for all frames of a clip: keys are neither repeated over frames nor
    concatenated with the frame's own.
    """
    b, f, n, h, d = query.shape
    scaled = query * d ** -0.5
    # Heads before tokens once, on these small arrays: the logits are never transposed.
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

    blends = [attend(selection.valid[:, m]) * selection.weight[:, m, None, None, None, None]
              for m in range(selection.valid.shape[1])]
    return sum(blends)


# Queries whose logits are held at a time.
_CHUNK = 256
# Whether Pallas kernels are interpreted, which tests do on a CPU.
_INTERPRET = False


def _in_chunks(attend: Callable[[jax.Array], jax.Array], query: jax.Array, axis: int) -> jax.Array:
    """A part of the queries after the other, each computed again for its gradient.

    Args:
        axis: of the query tokens.
    """
    n = query.shape[axis]
    size = next(size for size in range(min(n, _CHUNK), 0, -1) if n % size == 0)
    parts = jnp.moveaxis(query.reshape(*query.shape[:axis], n // size, size, *query.shape[axis + 1:]), axis, 0)
    return jnp.moveaxis(jax.lax.map(jax.checkpoint(attend), parts), 0, axis).reshape(query.shape)


def _chunked(query: jax.Array, key: jax.Array, value: jax.Array, references: KeyValues, selection: ReferenceSet
             ) -> jax.Array:
    """As `_xla` with bounded memory, forwards and backwards."""
    return _in_chunks(lambda part: _xla(part, key, value, references, selection), query, 2)


def _chunked_sequence(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
    """As `_product` with bounded memory."""
    return _in_chunks(lambda part: _product(part, key, value, seen), query, 1)


def _without_kernel(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
    """What the kernels below do not take, in chunks if the queries are many."""
    return (_product if query.shape[1] <= _CHUNK else _chunked_sequence)(query, key, value, seen)


def _one_sequence(key: jax.Array, value: jax.Array, references: KeyValues, valid: jax.Array
                  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys and values (B, F, N + S, H, D) of every frame with its references, and which are seen (B, N + S)."""
    b, f, n = key.shape[:3]
    repeated = lambda x: jnp.broadcast_to(x[:, None], (b, f, *x.shape[1:]))
    seen = jnp.concatenate([jnp.ones((b, n), bool), references.seen(valid)], -1)
    return (jnp.concatenate([key, repeated(references.key).astype(key.dtype)], 2),
            jnp.concatenate([value, repeated(references.value).astype(value.dtype)], 2), seen)


def _blended(attend):
    """An attention of one sequence to one, (B, F, N, H, D) with (B, F, S, H, D) and (B, S) seen, for a selection."""
    def run(query, key, value, references, selection):
        blends = []
        for m in range(selection.valid.shape[1]):
            keys, values, seen = _one_sequence(key, value, references, selection.valid[:, m])
            weight = selection.weight[:, m, None, None, None, None].astype(query.dtype)
            blends.append(attend(query, keys, values, seen) * weight)
        return sum(blends)
    return run


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
    """cuDNN's fused attention: NVIDIA GPUs from compute capability 8.0 on, half precision.

    Heads wider than 128, which it takes on the newest GPUs only, are left to XLA: Stable Diffusion has them where a
    frame is a few tokens.
    """
    f, s = key.shape[1:3]
    merged = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
    if query.shape[-1] > 128 or query.shape[-1] % 8:
        return _without_kernel(*merged, None if seen is None else jnp.repeat(seen, f, 0)).reshape(query.shape)
    mask = None
    if seen is not None:
        mask = jnp.broadcast_to(jnp.repeat(seen, f, 0)[:, None, None], (len(seen) * f, 1, query.shape[2], s))
    return jax.nn.dot_product_attention(*merged, mask=mask, implementation="cudnn").reshape(query.shape)


def _splash(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None, block: int = 512) -> jax.Array:
    """Splash attention (Pallas): TPUs.

    Heads of any width are taken as they are: padding them by hand costs memory and gains nothing. Where the sequences
    are no multiples of a block of 128, XLA's attention is used.

    Args:
        block: at most so many queries, and keys, at a time; of what divides a sequence the largest is taken
            (`benchmarks/tpu_attention.py` has compared them).
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    n, s = query.shape[2], key.shape[2]
    seen = jnp.ones((len(key), s), bool) if seen is None else seen
    if n % 128 or s % 128:
        merged = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
        return _without_kernel(*merged, jnp.repeat(seen, query.shape[1], 0)).reshape(query.shape)

    def local(query, key, value, seen):
        heads, width = query.shape[3:]
        largest = lambda length: next(size for size in (2048, 1024, 512, 256, 128)
                                      if size <= block and length % size == 0)
        q, kv = largest(n), largest(s)
        sizes = kernels.BlockSizes(block_q=q, block_kv=kv, block_kv_compute=kv, block_q_dkv=q, block_kv_dkv=kv,
                                   block_kv_dkv_compute=kv, block_q_dq=q, block_kv_dq=kv)
        kernel = kernels.make_splash_mha(
            masks.MultiHeadMask([masks.FullMask((n, s))] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=1,
            interpret=_INTERPRET)
        # Heads before tokens, as the kernel wants them: (B, F, H, N, D).
        query, key, value = (x.swapaxes(2, 3) for x in (query * width ** -0.5, key, value))
        segments = jax.vmap(lambda row: kernels.SegmentIds(q=jnp.ones(n, jnp.int32), kv=row.astype(jnp.int32)))(seen)
        frames = jax.vmap(kernel, in_axes=(0, 0, 0, None))
        return jax.vmap(frames)(query, key, value, segments).swapaxes(2, 3)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return local(query, key, value, seen)
    split = lambda size, *axes: axes if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None
    clips = split(len(query), "data", "fsdp")
    tokens = P(clips, split(query.shape[1], "frames"), None, split(query.shape[3], "tensor"))
    return jax.shard_map(local, in_specs=(tokens, tokens, tokens, P(clips)), out_specs=tokens, check_vma=False)(
        query, key, value, seen)


IMPLEMENTATIONS = {"xla": _xla, "chunked": _chunked, "splash": _blended(_splash), "cudnn": _blended(_cudnn)}


def choose_implementation(name: str, platform: str, dtype: str, capability: str = "") -> str:
    """What "auto" stands for: splash on TPUs, cuDNN on NVIDIA's GPUs that have it in half precision, else XLA's.

    Args:
        name: "auto" or one of `IMPLEMENTATIONS`.
        platform: where it is to run, "cpu", "gpu" or "tpu".
        capability: compute capability of the GPU, such as "8.0".

    Raises:
        InputError: one that this platform does not run.
    """
    wanted = {"splash": "tpu", "cudnn": "gpu"}.get(name, platform)
    if wanted != platform:
        raise InputError(f"attention={name} runs on a {wanted}, found a {platform}; choose auto, xla or chunked")
    if name != "auto":
        return name
    if platform == "gpu" and dtype != "float32" and re.fullmatch(r"([89]|\d\d)\.\d", capability):
        return "cudnn"
    return "splash" if platform == "tpu" else "xla"
