"""Flax networks and nothing else: no I/O, no mesh, no optimiser."""

from durian_jax.models.attention import KeyValues, ReferenceSet
from durian_jax.models.config import CodecConfig, DurianConfig, UNetConfig
from durian_jax.models.durian import Durian, compose, interpolate

__all__ = ["CodecConfig", "Durian", "DurianConfig", "KeyValues", "ReferenceSet", "UNetConfig", "compose",
           "interpolate"]
