"""Position codes: constants, shared by all backends."""

import math

import numpy as np

# Scale of a grid's code, relative to tokens of unit variance.
POSITION_SCALE = 1.5


def sequence_position_code(length: int, width: int) -> np.ndarray:
    """(length, width) float32 sinusoidal position code of a sequence, sines and cosines interleaved."""
    angles = np.arange(length)[:, None] * np.exp(-math.log(10000.0) * np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)


def grid_position_code(side: int, width: int) -> np.ndarray:
    """(side * side, width) float32 code of a token's position, with wavelengths from 2 to 64 tokens.

    The dot product of two codes falls with their distance, so attention starts local if the projections are near the
    identity.
    """
    pairs = width // 4
    angles = np.arange(side)[:, None] * math.pi * np.exp(-math.log(32.0) * np.arange(pairs) / max(pairs - 1, 1))
    line = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    rows = np.broadcast_to(line[:, None], (side, side, 2 * pairs))
    columns = np.broadcast_to(line[None, :], (side, side, 2 * pairs))
    code = np.concatenate([rows, columns], -1).reshape(side * side, 4 * pairs)
    return np.pad(code, ((0, 0), (0, width - 4 * pairs))).astype(np.float32)
