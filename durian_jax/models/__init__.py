"""Flax networks and nothing else: no I/O, no mesh, no optimiser."""

from durian_jax.models.attention import KeyValues, ReferenceSet
from durian_jax.models.config import (
    AutoencoderKLConfig,
    AutoencoderTinyConfig,
    CodecConfig,
    DurianConfig,
    ImageEncoderConfig,
    UNetConfig,
)
from durian_jax.models.durian import Durian, EncodedReferences, References, drop_references, select_references

__all__ = ["AutoencoderKLConfig", "AutoencoderTinyConfig", "CodecConfig", "Durian", "DurianConfig",
           "EncodedReferences", "ImageEncoderConfig", "KeyValues", "ReferenceSet", "References", "UNetConfig",
           "drop_references", "select_references"]
