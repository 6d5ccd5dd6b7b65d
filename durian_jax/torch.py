"""The public name of the PyTorch pipeline. Imports no jax.

    from durian_jax.torch import DurianPipeline

    pipeline = DurianPipeline.from_pretrained("exported", dtype="bfloat16").to("cuda")
    frames = pipeline(portrait, [("hair", photo)], driving)
"""

from durian_jax.pytorch.durian.pipeline import DurianPipeline

__all__ = ["DurianPipeline"]
