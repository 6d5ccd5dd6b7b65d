"""The noise that sampling starts from, without jax: the same numbers as jax.random's, so that a seed gives the same
video in every backend.

Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import erfinv

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def frame_noise(seed: int, frames: Sequence[int] | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(len(frames), *shape) float32 of the standard normal distribution.

    Args:
        seed: below 2^32.
        frames: number of each frame in the video; a frame's noise depends on it and on the seed only.
        shape: of a frame's noise.
    """
    return np.stack([_normal(_threefry((0, seed), *_split(np.array([frame]))), shape) for frame in frames])


def _normal(key: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    high, low = _threefry(key, *_split(np.arange(np.prod(shape))))
    # 23 random bits as the fraction of a number in [1, 2).
    uniform = ((high ^ low) >> np.uint32(9) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    uniform = np.maximum(uniform * (np.float32(1) - lowest) + lowest, lowest)
    return (np.float32(np.sqrt(2)) * erfinv(uniform)).astype(np.float32).reshape(shape)


def _split(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower 32 bits."""
    counts = counts.astype(np.uint64)
    return (counts >> np.uint64(32)).astype(np.uint32), counts.astype(np.uint32)


def _threefry(key, x0: np.ndarray, x1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k0, k1 = (np.asarray(word, np.uint32) for word in key)
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x0, x1 = x0 + keys[0], x1 + keys[1]
        for i in range(5):
            for turn in _ROTATIONS[i % 2]:
                x0 = x0 + x1
                x1 = (x1 << np.uint32(turn) | x1 >> np.uint32(32 - turn)) ^ x0
            x0, x1 = x0 + keys[(i + 1) % 3], x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
    return x0, x1
