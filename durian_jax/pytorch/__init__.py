"""Inference in PyTorch, on diffusers' modules. Imports no jax.

    from durian_jax.torch import DurianPipeline

    pipeline = DurianPipeline.from_pretrained("exported", dtype="bfloat16").to("cuda")
    frames = pipeline(portrait, [("hair", photo)], driving, steps=20, guidance_scale=3.5)
"""

from durian_jax.errors import InputError

try:
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise InputError(f"the torch backend needs torch, diffusers and transformers ({error}); run "
                     "pip install 'durian-jax[torch]'") from error
