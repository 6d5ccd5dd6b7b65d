"""`durian verify`: the parity certificate of JAX and PyTorch."""

from durian_jax.evaluation.parity.certificate import describe, verify_export

__all__ = ["describe", "verify_export"]
