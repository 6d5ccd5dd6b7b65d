"""Fused attention kernels of TPUs and NVIDIA GPUs.

Axis letters: B clips, F frames, N queries, S keys, H heads, D channels per head.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from durian_jax.models.attention.method import AttentionMethod, Partition
from durian_jax.models.attention.plain import without_kernel

# Queries and keys that splash attention takes at a time; the largest of these that divides the sequence is used.
_BLOCKS = (2048, 1024, 512, 256, 128)


def cudnn(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None, method: AttentionMethod,
          across_frames: bool = False) -> jax.Array:
    """cuDNN's fused attention: NVIDIA GPUs from compute capability 8.0 on, half precision.

    Heads wider than 128 run on the newest GPUs only. They are left to XLA: Stable Diffusion has them where a frame is
    a few tokens.

    Args:
        query: (B, F, N, H, D).
        key, value: (B, F, S, H, D).
        seen: (B, S) bool; False hides a key. None: all are seen.
        method, across_frames: not used.
    """
    f, s = key.shape[1:3]
    merged = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
    if query.shape[-1] > 128 or query.shape[-1] % 8:
        return without_kernel(*merged, None if seen is None else jnp.repeat(seen, f, 0)).reshape(query.shape)
    mask = None
    if seen is not None:
        mask = jnp.broadcast_to(jnp.repeat(seen, f, 0)[:, None, None], (len(seen) * f, 1, query.shape[2], s))
    return jax.nn.dot_product_attention(*merged, mask=mask, implementation="cudnn").reshape(query.shape)


def splash(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None, method: AttentionMethod,
           across_frames: bool = False, block: int = 512) -> jax.Array:
    """Splash attention (Pallas): TPUs.

    Heads keep their width: padding them by hand costs memory and gains nothing. XLA attends where a sequence is not a
    multiple of 128.

    Args:
        query: (B, F, N, H, D).
        key, value: (B, F, S, H, D).
        seen: (B, S) bool; False hides a key. None: all are seen.
        method: its partition and whether to interpret the kernel.
        across_frames: N are the tokens of all frames (F is 1): the mesh axes of frames divide the queries, and keys are
            gathered.
        block: largest number of queries, and of keys, at a time (compared in `benchmarks/tpu_attention.py`).
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    s = key.shape[2]
    seen = jnp.ones((len(key), s), bool) if seen is None else seen
    queries, keys, clips, n = _specs(method.partition, query.shape, across_frames)
    if n % 128 or s % 128:
        merged = (x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
        return without_kernel(*merged, jnp.repeat(seen, query.shape[1], 0)).reshape(query.shape)

    def local(query, key, value, seen):
        heads, width = query.shape[3:]
        largest = lambda length: next(size for size in _BLOCKS if size <= block and length % size == 0)
        q, kv = largest(n), largest(s)
        sizes = kernels.BlockSizes(block_q=q, block_kv=kv, block_kv_compute=kv, block_q_dkv=q, block_kv_dkv=kv,
                                   block_kv_dkv_compute=kv, block_q_dq=q, block_kv_dq=kv)
        kernel = kernels.make_splash_mha(
            masks.MultiHeadMask([masks.FullMask((n, s))] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=1,
            interpret=method.interpret)
        # The kernel expects heads before tokens: (B, F, H, N, D).
        query, key, value = (x.swapaxes(2, 3) for x in (query * width ** -0.5, key, value))
        segments = jax.vmap(lambda row: kernels.SegmentIds(q=jnp.ones(n, jnp.int32), kv=row.astype(jnp.int32)))(seen)
        frames = jax.vmap(kernel, in_axes=(0, 0, 0, None))
        return jax.vmap(frames)(query, key, value, segments).swapaxes(2, 3)

    if method.partition is None:
        return local(query, key, value, seen)
    return jax.shard_map(local, mesh=method.partition.mesh, in_specs=(queries, keys, keys, clips), out_specs=queries,
                         check_vma=False)(query, key, value, seen)


def _specs(partition: Partition | None, shape: tuple[int, ...], across_frames: bool) -> tuple[P, P, P, int]:
    """How (B, F, N, H, D) queries and keys and (B, S) masks are divided, and the number of queries of one device."""
    if partition is None:
        return P(), P(), P(), shape[2]

    def divided(size: int, axes: tuple[str, ...]) -> tuple[str, ...] | None:
        return axes if axes and size % math.prod(partition.mesh.shape[axis] for axis in axes) == 0 else None
    clips, heads = divided(shape[0], partition.clips), divided(shape[3], partition.heads)
    if not across_frames:
        tokens = P(clips, divided(shape[1], partition.frames), None, heads)
        return tokens, tokens, P(clips), shape[2]
    frames = divided(shape[2], partition.frames)
    count = math.prod(partition.mesh.shape[axis] for axis in frames or ())
    return P(clips, None, frames, heads), P(clips, None, None, heads), P(clips), shape[2] // count


KERNELS = {"cudnn": cudnn, "splash": splash}
