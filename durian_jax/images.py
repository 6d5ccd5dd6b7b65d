"""Pixels between files (uint8) and networks (float32)."""

import numpy as np


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 [-1, 1], any shape."""
    return images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(images, xp=np):
    """[-1, 1] -> uint8 0..255, clipped and rounded; `xp` is numpy or jax.numpy."""
    return xp.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(xp.uint8)


# Fields of a batch that are pictures, and those that are masks or shares of a pixel.
_PICTURES = ("frames", "portrait", "attributes")
_MASKS = ("frame_masks", "portrait_mask", "attribute_masks")


def model_inputs(batch: dict, xp=np) -> dict:
    """A batch of the loader as models take it: float32, pictures in [-1, 1], masks in [0, 1].

    Args:
        batch: fields of `data.samples.durian.sample_pair`, uint8 pictures and masks of 0 and 1; or of
            `data.encoded_samples`, float16 latents and embeddings, and uint8 masks of 0 to 255.
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
