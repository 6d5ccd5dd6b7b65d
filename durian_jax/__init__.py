"""Durian-JAX: portrait animation with attribute transfer, in JAX."""

__version__ = "0.1.0"
