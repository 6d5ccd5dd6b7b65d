"""Blocks of an MMDiT: joint attention of image and text tokens (arXiv 2403.03206), and attention over a video.

Axis letters: B clips, F frames, N image tokens of a frame, L text tokens, S keys, C channels, H heads, D channels of a
head.
"""

from collections.abc import Sequence
from functools import cache

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from durian_jax.models.attention import AttentionMethod, frame_attention, merge_heads, split_heads
from durian_jax.models.layers import FROM_HEADS, FROM_HIDDEN, TO_HEADS, TO_HIDDEN, dense, logical, zeros_init
from durian_jax.models.mmdit.config import MMDiTConfig

_EPSILON = 1e-6


@flax.struct.dataclass
class Keys:
    """Keys and values of tokens.

    Attributes:
        key, value: (B, F, S, H, D); F may be 1: the same for all frames.
    """

    key: jax.Array
    value: jax.Array

    def with_others(self, others: "Keys | None") -> "Keys":
        """These keys (B, F, N, H, D), followed by others of the same frames."""
        if others is None:
            return self
        b, f = self.key.shape[:2]
        repeated = [jnp.broadcast_to(x, (b, f, *x.shape[2:])).astype(self.key.dtype)
                    for x in (others.key, others.value)]
        return Keys(*(jnp.concatenate(pair, 2) for pair in zip((self.key, self.value), repeated, strict=True)))


@flax.struct.dataclass
class Seen:
    """Which keys are seen, in one or several attentions whose results are blended.

    Attributes:
        mask: (B, M, S) bool.
        weight: (B, F, M) of each attention; they sum to 1 over M. F may be 1: the same in all frames.
    """

    mask: jax.Array
    weight: jax.Array


def attend(query: jax.Array, keys: Keys, seen: Seen | None, method: AttentionMethod) -> jax.Array:
    """Attend from (B, F, N, H, D); keys beyond those of `seen` are seen by all."""
    if seen is None:
        return frame_attention(query, keys.key, keys.value, None, method)
    further = keys.key.shape[2] - seen.mask.shape[2]
    mask = jnp.pad(seen.mask, ((0, 0), (0, 0), (0, further)), constant_values=True)
    mixed = [frame_attention(query, keys.key, keys.value, mask[:, m], method) for m in range(mask.shape[1])]
    if len(mixed) == 1:
        return mixed[0]
    weight = seen.weight.astype(query.dtype)
    return sum(part * weight[..., m, None, None, None] for m, part in enumerate(mixed))


def layer_norm(x: jax.Array) -> jax.Array:
    """Layer normalisation over the last axis without parameters, computed and returned in float32."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + _EPSILON)


def rotate(x: jax.Array, angles: jax.Array | None) -> jax.Array:
    """Rotate channel i and channel i + D / 2 of (B, F, N, H, D) by angle i of (..., N, D / 2); None: not at all."""
    if angles is None:
        return x
    cos, sin = (f(angles)[..., None, :] for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1).astype(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation of each head's channels, computed in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", logical(nn.initializers.ones_init(), "norm"), (x.shape[-1],))
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + _EPSILON)
        return (wide * scale).astype(x.dtype)


class Modulation(nn.Module):
    """Scales, shifts and gates from the time code: (B, F, C) -> `count` arrays (B, F, 1, C). Starts at zero."""

    count: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, code: jax.Array) -> list[jax.Array]:
        x = dense(self.count * code.shape[-1], kernel_init=zeros_init, dtype=self.dtype, name="linear")(nn.silu(code))
        return jnp.split(x[:, :, None], self.count, -1)


@cache
def _local_init(heads: int):
    """An initialiser of biases: 0 for the first head, 2 for the last."""
    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jnp.repeat(jnp.linspace(0, 2, heads, dtype=dtype), shape[0] // heads)
    return init


class Projections(nn.Module):
    """Queries, keys and values of tokens (B, F, N, C): each (B, F, N, H, D).

    Attributes:
        local: attention starts local: the biases of queries and keys start at a positive number that grows from head to
            head. Where these biases rotate with the place, their products fall with the distance.
    """

    heads: int
    local: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        def project(name):
            bias = _local_init(self.heads) if self.local and name != "to_v" else zeros_init
            return split_heads(dense(x.shape[-1], bias_init=bias, dtype=self.dtype, axes=TO_HEADS, name=name)(x),
                               self.heads)
        query, key = RMSNorm(name="norm_q")(project("to_q")), RMSNorm(name="norm_k")(project("to_k"))
        return rotate(query, angles), rotate(key, angles), project("to_v")


class FeedForward(nn.Module):
    """Two layers with GELU between: (..., C) -> (..., C)."""

    multiplier: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        hidden = dense(self.multiplier * width, dtype=self.dtype, axes=TO_HIDDEN, name="net_0")(x)
        return dense(width, dtype=self.dtype, axes=FROM_HIDDEN, name="net_2")(nn.gelu(hidden, approximate=True))


def _modulated(normed: jax.Array, shift: jax.Array, scale: jax.Array, dtype: str) -> jax.Array:
    return (normed * (1 + scale) + shift).astype(dtype)


class JointBlock(nn.Module):
    """Attention of a frame's image tokens to themselves, text and other tokens; then a feed-forward.

    diffusers' JointTransformerBlock, with keys of other tokens added.

    Attributes:
        dual: add a second attention of the image tokens alone (Stable Diffusion 3.5 Medium).
        text: whether there is a text stream. last: its tokens end here, nothing reads them afterwards.
    """

    config: MMDiTConfig
    dual: bool = False
    text: bool = False
    last: bool = False
    dtype: str = "float32"
    method: AttentionMethod = AttentionMethod()

    def setup(self):
        cfg = self.config
        self.norm1 = Modulation(9 if self.dual else 6, self.dtype)
        local = cfg.positions == "rotary"
        self.attn = Projections(cfg.heads, local, self.dtype)
        self.attn_out = dense(cfg.width, dtype=self.dtype, axes=FROM_HEADS)
        self.ff = FeedForward(cfg.feedforward_multiplier, self.dtype)
        if self.dual:
            self.attn2 = Projections(cfg.heads, local, self.dtype)
            self.attn2_out = dense(cfg.width, dtype=self.dtype, axes=FROM_HEADS)
        if self.text:
            self.norm1_context = Modulation(2 if self.last else 6, self.dtype)
            self.attn_context = Projections(cfg.heads, dtype=self.dtype)
        if self.text and not self.last:
            self.attn_context_out = dense(cfg.width, dtype=self.dtype, axes=FROM_HEADS)
            self.ff_context = FeedForward(cfg.feedforward_multiplier, self.dtype)

    def __call__(self, x: jax.Array, text: jax.Array | None, code: jax.Array, angles: jax.Array | None = None,
                 others: Sequence[Keys] | None = None, seen: Seen | None = None
                 ) -> tuple[jax.Array, jax.Array | None, tuple[Keys, ...]]:
        """Run the block.

        Args:
            x: (B, F, N, C) image tokens, those of a frame in one sequence.
            text: (B, F, 1, C), one of `text_tokens` equal null tokens; None: no text stream.
            code: (B, F, C) time code.
            angles: (..., N, D / 2) of `rotate`.
            others: of each attention (one, two in dual blocks), keys of other tokens that `x` attends to.
            seen: which of the N + S image tokens and others. None: all.

        Returns:
            The image tokens, the text token, and of each attention the keys of the image tokens.
        """
        cfg = self.config
        normed = layer_norm(x)
        shift, scale, gate, shift_ff, scale_ff, gate_ff, *dual = self.norm1(code)
        query, key, value = self.attn(_modulated(normed, shift, scale, self.dtype), angles)
        own = (Keys(key, value),)
        known, rest = own[0].with_others(others and others[0]), []
        if text is not None:
            shift_text, scale_text, *rest = self._text_modulation(code)
            text_query, *one = self.attn_context(_modulated(layer_norm(text), shift_text, scale_text, self.dtype))
            # Null tokens are equal and stay equal: compute one, repeat its keys.
            known = known.with_others(Keys(*(jnp.repeat(y, cfg.text_tokens, 2) for y in one)))
            if not self.last:
                # Their one query attends on its own: kernels take numbers of queries that 128 divides.
                text_mixed = merge_heads(attend(text_query, known, seen, AttentionMethod()))
        x = x + gate * self.attn_out(merge_heads(attend(query, known, seen, self.method)))
        if self.dual:
            shift2, scale2, gate2 = dual
            query, key, value = self.attn2(_modulated(normed, shift2, scale2, self.dtype), angles)
            own = (*own, Keys(key, value))
            known = own[1].with_others(others and others[1])
            x = x + gate2 * self.attn2_out(merge_heads(attend(query, known, seen, self.method)))
        x = x + gate_ff * self.ff(_modulated(layer_norm(x), shift_ff, scale_ff, self.dtype))
        if text is None or self.last:
            return x, None, own
        gate_text, shift_ff, scale_ff, gate_ff = rest
        text = text + gate_text * self.attn_context_out(text_mixed)
        return x, text + gate_ff * self.ff_context(_modulated(layer_norm(text), shift_ff, scale_ff, self.dtype)), own

    def _text_modulation(self, code: jax.Array) -> list[jax.Array]:
        """Shift and scale, and in all but the last block gate, shift, scale and gate again."""
        parts = self.norm1_context(code)
        return parts[::-1] if self.last else parts  # the last one has the order of AdaLayerNormContinuous


class VideoBlock(nn.Module):
    """Attention over the tokens of all frames, whose output starts at zero (arXiv 2509.17476, "full-video attention").

    In "factorised" a token attends to the tokens with its own place only.
    """

    config: MMDiTConfig
    dtype: str = "float32"
    method: AttentionMethod = AttentionMethod()

    def setup(self):
        self.norm = Modulation(3, self.dtype)
        self.attn = Projections(self.config.heads, self.config.positions == "rotary", self.dtype)
        self.attn_out = dense(self.config.width, kernel_init=zeros_init, dtype=self.dtype, axes=FROM_HEADS)

    def __call__(self, x: jax.Array, code: jax.Array, angles: jax.Array, history: Keys | None = None,
                 seen: jax.Array | None = None) -> tuple[jax.Array, Keys]:
        """Run the block.

        Args:
            x: (B, F, N, C).
            code: (B, F, C) time code.
            angles: (F, N, D / 2) of `rotate`.
            history: keys (B, T, N, H, D) of earlier frames.
            seen: (B, F + T) bool; False hides a frame. None: all are seen.

        Returns:
            The tokens, and their keys.
        """
        shift, scale, gate = self.norm(code)
        query, key, value = self.attn(_modulated(layer_norm(x), shift, scale, self.dtype), angles)
        own = Keys(key, value)
        if history is not None:
            key = jnp.concatenate([key, history.key.astype(key.dtype)], 1)
            value = jnp.concatenate([value, history.value.astype(value.dtype)], 1)
        mixed = self._attend(query, key, value, seen)
        # The output starts at zero. A gate that started at zero too would never get a gradient.
        return x + (1 + gate) * self.attn_out(merge_heads(mixed)), own

    def _attend(self, query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array | None) -> jax.Array:
        b, f, n = query.shape[:3]
        if self.config.video == "factorised":
            seen = None if seen is None else jnp.repeat(seen, n, 0)
            places = (y.swapaxes(1, 2).reshape(b * n, 1, y.shape[1], *y.shape[3:]) for y in (query, key, value))
            mixed = frame_attention(*places, seen, self.method)
            return mixed.reshape(b, n, f, *query.shape[3:]).swapaxes(1, 2)
        seen = None if seen is None else jnp.repeat(seen, n, 1)
        merged = (y.reshape(b, 1, -1, *y.shape[3:]) for y in (query, key, value))
        return frame_attention(*merged, seen, self.method, across_frames=True).reshape(query.shape)
