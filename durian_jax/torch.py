"""The public names of the PyTorch pipelines. Imports no jax.

    from durian_jax.torch import DurianPipeline

    pipeline = DurianPipeline.from_pretrained("exported", dtype="bfloat16").to("cuda")
    frames = pipeline(portrait, [("hair", photo)], driving)

SVDPPipeline is used in the same way; its driver is a clip, whose eyes, nose and mouth the model sees.
"""

from durian_jax.pytorch.durian.pipeline import DurianPipeline
from durian_jax.pytorch.svdp.pipeline import SVDPPipeline

__all__ = ["DurianPipeline", "SVDPPipeline"]
