"""Pixels between files (uint8) and networks (float32)."""

import numpy as np


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 [-1, 1], any shape."""
    return images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(images, xp=np):
    """[-1, 1] -> uint8 0..255, clipped and rounded; `xp` is numpy or jax.numpy."""
    return xp.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(xp.uint8)


def model_inputs(batch: dict, xp=np) -> dict:
    """A batch of the loader as models take it.

    Pictures become float32 in [-1, 1], references 0 (mid grey) where nothing may be seen of them, masks 0 or 1.

    Args:
        batch: fields of `data.pairs.sample_pair`, uint8 pictures and masks.
        xp: numpy or jax.numpy.
    """
    def picture(name):
        return batch[name].astype(xp.float32) * xp.float32(1 / 127.5) - xp.float32(1)

    masks = {name: batch[name].astype(xp.float32) for name in ("frame_masks", "portrait_mask", "attribute_masks")}
    return {**batch, **masks, "frames": picture("frames"),
            "portrait": picture("portrait") * (1 - masks["portrait_mask"]),
            "attributes": picture("attributes") * masks["attribute_masks"]}
