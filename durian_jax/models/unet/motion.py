"""Temporal self-attention (motion modules in the style of AnimateDiff, arXiv 2307.04725)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import merge_heads, self_attention, split_heads
from durian_jax.models.layers import FROM_HEADS, TO_HEADS, dense, group_norm, layer_norm, zeros_init
from durian_jax.models.positions import sequence_position_code
from durian_jax.models.unet.transformer import FeedForward


class TemporalAttention(nn.Module):
    """Each position attends to itself in all frames: (M, F, C) -> (M, F, C)."""

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + jnp.asarray(sequence_position_code(*x.shape[1:]), x.dtype)
        project = lambda name: split_heads(
            dense(x.shape[-1], use_bias=False, dtype=self.dtype, axes=TO_HEADS, name=name)(x), self.heads)
        mixed = self_attention(project("to_q"), project("to_k"), project("to_v"))
        return dense(x.shape[-1], dtype=self.dtype, axes=FROM_HEADS, name="to_out")(merge_heads(mixed))


class MotionModule(nn.Module):
    """Two temporal attentions and a feed-forward, whose zero-initialised output is added to the frames.

    The first normalisation is over a whole clip, as in diffusers, whose weights and classes these modules match.
    (AnimateDiff's own code normalises each frame.)

    Args of the call: (B * F, h, w, C) and F. Returns the same shape.
    """

    heads: int
    norm_groups: int
    feedforward_multiplier: int = 4
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, frames: int) -> jax.Array:
        m, height, width, c = x.shape
        b = m // frames
        clips = x.reshape(b, frames, height * width, c)
        tokens = group_norm(self.norm_groups, epsilon=1e-6, name="norm")(clips)
        tokens = tokens.swapaxes(1, 2).reshape(-1, frames, c)
        tokens = dense(c, dtype=self.dtype, name="proj_in")(tokens)
        for i in (1, 2):
            attention = TemporalAttention(self.heads, self.dtype, name=f"attn{i}")
            tokens += attention(layer_norm(name=f"norm{i}")(tokens))
        tokens += FeedForward(self.feedforward_multiplier, self.dtype, name="ff")(layer_norm(name="norm3")(tokens))
        tokens = dense(c, kernel_init=zeros_init, dtype=self.dtype, name="proj_out")(tokens)
        return x + tokens.reshape(b, height * width, frames, c).swapaxes(1, 2).reshape(x.shape)
