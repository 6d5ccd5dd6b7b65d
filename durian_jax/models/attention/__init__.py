"""Attention in space: one function for frames with references, one for plain sequences, several implementations."""

from durian_jax.models.attention.method import (
    IMPLEMENTATIONS,
    AttentionMethod,
    Partition,
    choose_implementation,
)
from durian_jax.models.attention.plain import merge_heads, split_heads
from durian_jax.models.attention.references import (
    KeyValues,
    ReferenceSet,
    embedding_attention,
    reference_attention,
)
from durian_jax.models.attention.sequences import frame_attention, self_attention

__all__ = ["IMPLEMENTATIONS", "AttentionMethod", "KeyValues", "Partition", "ReferenceSet", "choose_implementation",
           "embedding_attention", "frame_attention", "merge_heads", "reference_attention", "self_attention",
           "split_heads"]
