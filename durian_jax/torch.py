"""The public name of the PyTorch pipeline. Imports no jax.

    from durian_jax.torch import DurianPipeline

    pipeline = DurianPipeline.from_pretrained("exported", dtype="bfloat16").to("cuda")
    frames = pipeline(portrait, [("hair", photo)], driving, steps=20, guidance_scale=3.5)
"""

from durian_jax.pytorch.durian.pipeline import DurianPipeline

__all__ = ["DurianPipeline"]
