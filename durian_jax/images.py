"""Pixels between files (uint8) and networks (float32)."""

import numpy as np


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 [-1, 1], any shape."""
    return images.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def to_uint8(images, xp=np):
    """[-1, 1] -> uint8 0..255, clipped and rounded; `xp` is numpy or jax.numpy."""
    return xp.clip((images + 1) * 127.5 + 0.5, 0, 255).astype(xp.uint8)
