"""The public name of the PyTorch pipeline; see `durian_jax.pytorch`. Imports no jax."""

from durian_jax.pytorch.durian.pipeline import DurianPipeline

__all__ = ["DurianPipeline"]
