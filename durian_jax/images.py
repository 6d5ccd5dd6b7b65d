"""Convert pixels between files (uint8) and networks (float32), and turn pictures upright."""

import numpy as np


def to_float(images: np.ndarray) -> np.ndarray:
    """Convert uint8 0..255 of any shape to float32 in [-1, 1]."""
    return images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(images, xp=np):
    """Convert [-1, 1] to uint8 0..255, clipped and rounded; `xp` is numpy or jax.numpy."""
    return xp.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(xp.uint8)


def turned(image: np.ndarray, turns: int) -> np.ndarray:
    """Return an (H, W, ...) picture after this number of quarter turns to the left."""
    return np.ascontiguousarray(np.rot90(image, turns))
