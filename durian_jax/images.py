"""Convert pixels between files (uint8) and networks (float32)."""

import numpy as np


def to_float(images: np.ndarray) -> np.ndarray:
    """Convert uint8 0..255 of any shape to float32 in [-1, 1]."""
    return images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(images, xp=np):
    """Convert [-1, 1] to uint8 0..255, clipped and rounded; `xp` is numpy or jax.numpy."""
    return xp.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(xp.uint8)


# Batch fields that hold pictures, and batch fields that hold masks.
_PICTURES = ("frames", "portrait", "attributes")
_MASKS = ("frame_masks", "portrait_mask", "attribute_masks")


def model_inputs(batch: dict, xp=np) -> dict:
    """Convert a loader batch to model inputs: float32, pictures in [-1, 1], masks in [0, 1].

    Args:
        batch: fields of a sample from `data.samples` (uint8 pictures, and masks of 0 and 1), or from
            `data.encoded_samples` (float16 latents and embeddings, and uint8 masks of 0..255).
        xp: numpy or jax.numpy.
    """
    share = 1 / 255 if "frame_latents" in batch else 1.0
    out = {name: value.astype(xp.float32) for name, value in batch.items()}
    for name in _PICTURES:
        if name in out:
            out[name] = out[name] * xp.float32(1 / 127.5) - xp.float32(1)
    for name in _MASKS:
        out[name] = out[name] * xp.float32(share)
    return out
