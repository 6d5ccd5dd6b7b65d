"""Spatial transformer: reference attention, optional cross-attention, gated feed-forward.

Axis letters: B clips, F frames, G reference groups, N = h * w tokens, S tokens of all references, C channels,
H heads, D channels of a head.
"""

import math
from functools import partial
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import (
    AttentionMethod,
    KeyValues,
    ReferenceSet,
    embedding_attention,
    merge_heads,
    self_attention,
    split_heads,
)
from durian_jax.models.attention.kept_tokens import KeptTokens
from durian_jax.models.layers import (
    FROM_HEADS,
    FROM_HIDDEN,
    TO_HEADS,
    TO_HIDDEN,
    default_init,
    dense,
    group_norm,
    layer_norm,
    zeros_init,
)
from durian_jax.models.positions import POSITION_SCALE, grid_position_code


class SiteReferences(Protocol):
    """What the frames of one attention site attend to besides themselves; `KeyValues` is one kind."""

    def attend(self, query: jax.Array, key: jax.Array, value: jax.Array, selection: ReferenceSet,
               method: AttentionMethod) -> jax.Array:
        """Attend from (B, F, N, H, D) of the frames: -> (B, F, N, H, D)."""


def near_identity_init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """The identity plus a little noise, so that queries and keys start in the same space."""
    return jnp.eye(*shape, dtype=dtype) + 0.3 * default_init(key, shape, dtype)


class FeedForward(nn.Module):
    """GEGLU: (..., C) -> (..., C), through `multiplier` times the width."""

    multiplier: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        hidden, gate = jnp.split(
            dense(2 * self.multiplier * width, dtype=self.dtype, axes=TO_HIDDEN, name="net_0")(x), 2, -1)
        return dense(width, dtype=self.dtype, axes=FROM_HIDDEN, name="net_2")(hidden * nn.gelu(gate, approximate=False))


class SpatialAttention(nn.Module):
    """Attention of a frame to itself and to references; one set of projections serves all (W_Q, W_K, W_V)."""

    channels: int
    heads: int
    positions: bool
    dtype: str = "float32"
    method: AttentionMethod = AttentionMethod()

    def setup(self):
        init = near_identity_init if self.positions else default_init
        to_heads = partial(dense, self.channels, use_bias=False, dtype=self.dtype, axes=TO_HEADS)
        self.to_q = to_heads(kernel_init=init)
        self.to_k = to_heads(kernel_init=init)
        self.to_v = to_heads()
        if self.positions:
            self.to_v_position = to_heads(kernel_init=zeros_init)
        self.to_out = dense(self.channels, dtype=self.dtype, axes=FROM_HEADS)

    def _code(self, tokens: int) -> jax.Array:
        """(N, C): every head gets the whole code."""
        code = grid_position_code(math.isqrt(tokens), self.channels // self.heads)
        return jnp.tile(code, (1, self.heads)).astype(self.dtype)

    def _placed(self, x: jax.Array, tokens: int, places: jax.Array | slice = slice(None)) -> jax.Array:
        return x + POSITION_SCALE * self._code(tokens)[places] if self.positions else x

    def _key_value(self, x: jax.Array, tokens: int, places: jax.Array | slice = slice(None)
                   ) -> tuple[jax.Array, jax.Array]:
        """Keys and values (..., S, H, D) of tokens (..., S, C) at the `places` (..., S) among N."""
        # A position code in the value tells a frame how far to move the token that it attends to.
        moved = self.to_v_position(self._code(tokens))[places] if self.positions else 0
        return (split_heads(self.to_k(self._placed(x, tokens, places)), self.heads),
                split_heads(self.to_v(x) + moved, self.heads))

    def project(self, x: jax.Array, kept: KeptTokens | None = None) -> KeyValues:
        """Reference features (B, G, N, C) -> keys and values of the kept tokens; `kept` None: of all tokens."""
        b, groups, n, c = x.shape
        if kept is None:
            key, value = (y.reshape(b, groups * n, *y.shape[3:]) for y in self._key_value(x, n))
            return KeyValues(key, value, (n,) * groups)
        x = jnp.take_along_axis(x.reshape(b, groups * n, c), kept.index[..., None], 1, mode="promise_in_bounds")
        return KeyValues(*self._key_value(x, n, kept.index % n), kept.sizes)

    def __call__(self, x: jax.Array, references: SiteReferences | None = None,
                 selection: ReferenceSet | None = None) -> jax.Array:
        """Attend: (B, F, N, C) tokens -> (B, F, N, C).

        Args:
            references: what frames attend to besides themselves; None: plain self-attention.
            selection: which references take part.
        """
        b, f, n = x.shape[:3]
        query = split_heads(self.to_q(self._placed(x, n)), self.heads)
        key, value = self._key_value(x, n)
        if references is None:
            sequences = (y.reshape(b * f, n, *y.shape[3:]) for y in (query, key, value))
            mixed = self_attention(*sequences, method=self.method).reshape(query.shape)
        else:
            mixed = references.attend(query, key, value, selection, self.method)
        return self.to_out(merge_heads(mixed))


class CrossAttention(nn.Module):
    """Attention of tokens (B, F, N, C) to the image embeddings (B, A, context_dim) of a selection's attributes."""

    channels: int
    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array, selection: ReferenceSet | None = None) -> jax.Array:
        project = lambda name, y: split_heads(
            dense(self.channels, use_bias=False, dtype=self.dtype, axes=TO_HEADS, name=name)(y), self.heads)
        b, f, n = x.shape[:3]
        query = project("to_q", x).reshape(b, f * n, self.heads, -1)
        mixed = embedding_attention(query, project("to_k", context), project("to_v", context), selection)
        return dense(self.channels, dtype=self.dtype, axes=FROM_HEADS, name="to_out")(
            mixed.reshape(b, f, n, self.channels))


class SpatialTransformer(nn.Module):
    """One attention site of a U-Net (diffusers' Transformer2DModel with one block).

    Attributes:
        features_only: build and run the site only up to its features: the last site of a ReferenceNet, after which
            nothing receives a gradient.
        attention: how attention in space is computed.
    """

    channels: int
    heads: int
    norm_groups: int
    positions: bool
    cross_attention: bool
    feedforward_multiplier: int = 4
    features_only: bool = False
    dtype: str = "float32"
    attention: AttentionMethod = AttentionMethod()

    def setup(self):
        self.norm = group_norm(self.norm_groups, epsilon=1e-6)
        self.proj_in = dense(self.channels, dtype=self.dtype)
        self.norm1 = layer_norm()
        if self.features_only:
            return
        self.attn1 = SpatialAttention(self.channels, self.heads, self.positions, self.dtype, self.attention)
        if self.cross_attention:
            self.norm2 = layer_norm()
            self.attn2 = CrossAttention(self.channels, self.heads, self.dtype)
        self.norm3 = layer_norm()
        self.ff = FeedForward(self.feedforward_multiplier, self.dtype)
        self.proj_out = dense(self.channels, dtype=self.dtype)

    def __call__(self, x: jax.Array, frames: int, references: SiteReferences | None = None,
                 selection: ReferenceSet | None = None, context: jax.Array | None = None
                 ) -> tuple[jax.Array, jax.Array]:
        """Run the site.

        Args:
            x: (B * F, h, w, C).
            frames: F.
            references, selection: see `SpatialAttention`.
            context: (B, A, context_dim) image embeddings, if the site has cross-attention.

        Returns:
            (B * F, h, w, C) and the site's features (B, F, N, C), which a ReferenceNet hands over.
        """
        m, height, width, c = x.shape
        tokens = self.proj_in(self.norm(x).reshape(m // frames, frames, height * width, c))
        features = self.norm1(tokens).astype(self.dtype)
        if self.features_only:
            return x, features
        tokens += self.attn1(features, references, selection)
        if self.cross_attention:
            tokens += self.attn2(self.norm2(tokens), context, selection)
        tokens += self.ff(self.norm3(tokens))
        return x + self.proj_out(tokens).reshape(x.shape), features
